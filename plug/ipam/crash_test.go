package ipam

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// The test binary runs itself as the process that is killed, and as the one whose disk is full.
func TestMain(m *testing.M) {
	switch os.Getenv("IPAM_TEST_AS") {
	case "leaser":
		leaser(os.Getenv("IPAM_TEST_DB"))
	case "fulldisk":
		fullDisk(os.Getenv("IPAM_TEST_DIR"))
	default:
		os.Exit(m.Run())
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
}

// leaser leases and releases for ever, and says before and after each step what it does. One
// line is one write: it is in the pipe before the next step begins.
func leaser(path string) {
	db, err := bbolt.Open(path, 0o600, nil)
	must(err)
	s, err := Open(db)
	must(err)
	p := pool("br0", "10.0.0.0/26")
	run := os.Getpid()
	for i := 0; ; i++ {
		owner := fmt.Sprintf("c%d-%d", run, i)
		a, err := s.Lease(p, owner, nil)
		if errors.Is(err, ErrFull) {
			victim := s.Leases("br0")[i%7].Owner
			fmt.Println("releasing", victim)
			must(s.Release("br0", victim))
			fmt.Println("released", victim)
			continue
		}
		must(err)
		fmt.Println("leased", owner, a)
	}
}

// A process that is killed at any moment has told nobody of an address that the store does
// not know afterwards, nor of one that it gives to another.
func TestKilledWhileLeasing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugs.db")
	has := map[string]netip.Addr{} // what was told, by owner
	unsure := map[string]bool{}    // releases that were begun
	total := 0
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "IPAM_TEST_AS=leaser", "IPAM_TEST_DB="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			f := strings.Fields(lines.Text())
			switch f[0] {
			case "leased":
				total++
				a := netip.MustParseAddr(f[2])
				for owner, b := range has {
					if a == b && !unsure[owner] {
						t.Fatalf("%s was given to %s, and %s has it", a, f[1], owner)
					} else if a == b {
						delete(has, owner)
						delete(unsure, owner)
					}
				}
				has[f[1]] = a
			case "releasing":
				unsure[f[1]] = true
			case "released":
				delete(has, f[1])
				delete(unsure, f[1])
			default:
				t.Fatal(lines.Text())
			}
			if n == 20+round*11 {
				// Somewhere within a step: the time of one is about that of a sync.
				time.AfterFunc(time.Duration(round)*137*time.Microsecond, func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 10 * time.Second})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s, err := Open(db)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if d := s.Damaged(); len(d) > 0 {
			t.Errorf("round %d: %q", round, d)
		}
		by := map[string]netip.Addr{}
		for _, l := range s.Leases("") {
			by[l.Owner] = l.Addr
		}
		for owner, a := range has {
			if by[owner] != a && !unsure[owner] {
				t.Errorf("round %d: %s was given %s, and the store says %s", round, owner, a, by[owner])
			}
			if by[owner] != a {
				delete(has, owner)
				delete(unsure, owner)
			}
		}
		db.Close()
	}
	t.Logf("%d leases told, 8 kills", total)
}

// fullDisk fills a file system of 512 KiB with leases, in its own mount namespace.
func fullDisk(dir string) {
	must(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"))
	db, err := bbolt.Open(dir+"/plugs.db", 0o600, nil)
	must(err)
	s, err := Open(db)
	must(err)
	p := pool("br0", "10.0.0.0/16")
	var first error
	for i := 0; first == nil && i < 20000; i++ {
		_, first = s.Lease(p, fmt.Sprint(strings.Repeat("owner", 100), i), nil)
	}
	if !errors.Is(first, syscall.ENOSPC) {
		must(fmt.Errorf("no error of a full disk: %v", first))
	}
	told := s.Leases("")
	if _, err := s.Lease(p, strings.Repeat("another", 100), nil); err == nil {
		// A small record may still find room; a second is not told of what failed.
		told = s.Leases("")
	}
	must(db.Close())
	db, err = bbolt.Open(dir+"/plugs.db", 0o600, nil)
	must(err)
	s, err = Open(db)
	must(err)
	if fmt.Sprint(s.Leases("")) != fmt.Sprint(told) {
		must(fmt.Errorf("%d leases before, %d after", len(told), len(s.Leases(""))))
	}
	fmt.Println("ok", len(told), first)
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, for a file system of its own")
		}
		t.Skip("needs root, for a file system of its own")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "IPAM_TEST_AS=fulldisk", "IPAM_TEST_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.HasPrefix(string(out), "ok ") {
		t.Fatal(err)
	}
}

// A file that cannot be written is an error of each call, and changes nothing.
func TestWriteFails(t *testing.T) {
	s, db := open(t)
	p := pool("br0", "10.0.0.0/29")
	a := mustLease(t, s, p, "a")
	db.Close()
	if _, err := s.Lease(p, "b", nil); !errors.Is(err, bbolt.ErrDatabaseNotOpen) || !strings.Contains(err.Error(), "br0 for b") {
		t.Error(err)
	}
	if err := s.Reserve("br0", addr("10.0.0.5"), "b"); !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	if err := s.Release("", "a"); !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	if err := s.ReleaseAddr("br0", a); !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	if err := s.Forget("br0"); !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	if l := s.Leases(""); len(l) != 1 || l[0].Addr != a || len(s.Of("b")) != 0 {
		t.Error(l)
	}
}
