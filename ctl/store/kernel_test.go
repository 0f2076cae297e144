package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tmpfs mounts one for the test; it needs root.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounting needs root")
		}
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("vswitch-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill takes all the room there is and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	mount := tmpfs(t, "size=1m")
	dir := filepath.Join(mount, "state")
	s := mustOpen(t, dir, Options{})
	mustPut(t, s, 1)
	for n := 1; n < 6; n++ {
		wantCurrent(t, s, n)
		free := fill(t, mount)
		for range 3 {
			_, err := s.Put(numbered(9, 2000), "", PutOptions{})
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("%v", err)
			}
			wantCurrent(t, s, n)
		}
		s.Close()
		s = mustOpen(t, dir, Options{}) // a restart on a full disk
		wantCurrent(t, s, n)
		if s.ReadOnly() {
			t.Fatal(s.Warnings())
		}
		free()
		mustPut(t, s, n+1)
	}
	// Until it is full by itself: desired.yaml fits, the database does not.
	n := 6
	for ; n < 200; n++ {
		if _, err := s.Put(numbered(n+1, 300), "", PutOptions{}); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	t.Logf("full at version %d", n)
	wantCurrent(t, s, n)
	s.Close()
	s = mustOpen(t, dir, Options{Keep: 3})
	wantCurrent(t, s, n)
	if len(s.Warnings()) != 0 {
		t.Error(s.Warnings())
	}
}

func TestDiskFullFromTheStart(t *testing.T) {
	mount := tmpfs(t, "size=64k")
	dir := filepath.Join(mount, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	free := fill(t, mount)
	if _, err := Open(dir, Options{}); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
	free()
	mustPut(t, mustOpen(t, dir, Options{}), 1)
}

func TestReadOnlyMount(t *testing.T) {
	mount := tmpfs(t, "size=4m")
	dir := filepath.Join(mount, "state")
	empty := filepath.Join(mount, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", mount, "", unix.MS_REMOUNT|flags, "size=4m"); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, dir, Options{})
	mustPut(t, s, 1)
	mustPut(t, s, 2)
	s.Close()

	refuses := func(s *Store) {
		t.Helper()
		wantCurrent(t, s, 2)
		if !s.ReadOnly() || !strings.Contains(strings.Join(s.Warnings(), "\n"), "is read-only, changes will be refused") {
			t.Error(s.Warnings())
		}
		if _, err := s.Put(numbered(3, 0), "", PutOptions{}); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), dir) {
			t.Error(err)
		}
		wantCurrent(t, s, 2)
	}
	remount(unix.MS_RDONLY)
	s = mustOpen(t, dir, Options{})
	refuses(s)
	if d, err := s.Get(1); err != nil || number(d) != 1 || len(s.History()) != 2 {
		t.Errorf("%d, %v", number(d), err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "is in use by vswitchd (pid ") {
		t.Error(err)
	}
	s.Close()
	for _, bad := range []string{empty, filepath.Join(mount, "missing")} {
		if _, err := Open(bad, Options{}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}

	remount(0)
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dbName), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	remount(unix.MS_RDONLY)
	s = mustOpen(t, dir, Options{})
	refuses(s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	remount(0)
	s = mustOpen(t, dir, Options{}) // recovers what the last one only read
	wantCurrent(t, s, 2)
	mustPut(t, s, 3)
}

// TestKill kills a child between and within its Puts. The child prints a version
// when Put has returned; the parent opens the directory and must find the last
// one printed, or one more.
func TestKill(t *testing.T) {
	if dir := os.Getenv("VSWITCH_TEST_STORE"); dir != "" {
		putForEver(dir)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rounds := 100
	if testing.Short() {
		rounds = 5
	}
	last := 0
	for round := range rounds {
		child := exec.Command(exe, "-test.run=^TestKill$")
		child.Env = append(os.Environ(), "VSWITCH_TEST_STORE="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		guardTimer := time.AfterFunc(30*time.Second, func() { child.Process.Kill() })
		lines := bufio.NewScanner(out)
		said := 0
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil || n != last+1 && n != last+2 {
				child.Process.Kill()
				child.Wait()
				t.Fatalf("round %d: child says %q after %d", round, lines.Text(), last)
			}
			last = n
			if said++; said == 1+round%7 {
				// Some way into the next Put: another place each round.
				time.AfterFunc(time.Duration(round*37%1500)*time.Microsecond, func() { child.Process.Kill() })
			}
		}
		child.Wait()
		if !guardTimer.Stop() {
			t.Fatal("the child hung")
		}
		s := mustOpen(t, dir, Options{Keep: 10})
		version, doc := s.Current()
		if int(version) != last && int(version) != last+1 || number(doc) != int(version) {
			t.Fatalf("round %d: version %d with document %d, the last said was %d", round, version, number(doc), last)
		}
		if w := s.Warnings(); len(w) != 0 {
			t.Fatalf("round %d: %v", round, w)
		}
		if d, err := readDesired(filepath.Join(dir, yamlName)); err != nil || d.entry.Version != version {
			t.Fatalf("round %d: desired.yaml at %d, %v", round, d.entry.Version, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d versions, %d kills", last, rounds)
}

func putForEver(dir string) {
	s, err := Open(dir, Options{Keep: 10})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		v, _ := s.Current()
		n := int(v) + 1
		if _, err := s.Put(numbered(n, n%50), "", PutOptions{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(n) + "\n")
	}
}
