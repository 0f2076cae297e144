package ctl

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
)

// opened is openPlugBook and what it said.
func opened(t *testing.T, path, runDir string) (*plugBook, string) {
	t.Helper()
	var said bytes.Buffer
	l, err := openPlugBook(path, runDir, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return l, said.String()
}

func (l *plugBook) closed(t *testing.T) {
	t.Helper()
	if err := l.close(slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	l.remove()
}

// kept puts n things into a book, one by one, and some of them away again: so there are
// branches, leaves and free pages.
func kept(t *testing.T, l *plugBook, n int) {
	t.Helper()
	subnet := netip.MustParsePrefix("10.0.0.0/16")
	pool := ipam.Pool{Name: "br0", Pool: config.Pool{Subnet: subnet, Range: subnet}}
	l.db.db.NoSync = true
	for i := range n {
		if _, err := l.leases.Lease(pool, fmt.Sprintf("docker:c%03d eth1", i), nil); err != nil {
			t.Fatal(err)
		}
		item := held.Item{Owner: "cni", Key: fmt.Sprintf("k%03d", i), Bridge: "br0", Ports: []config.Port{{Name: fmt.Sprintf("c%d", i), Type: "plug"}}}
		if err := l.held.Change([]held.Item{item}, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.held.Change(nil, "cni", []string{"k000", "k001"}); err != nil {
		t.Fatal(err)
	}
}

// TestBookDamaged overwrites each page of a real file with junk, one after the other, and
// cuts the file there. It is always opened. What was in it is there, or it is said that it is
// not, and the damaged file is put aside; and whatever is there can be written.
func TestBookDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugs.db")
	const n = 150
	l, _ := opened(t, path, dir)
	kept(t, l, n)
	size := l.db.db.Info().PageSize
	l.closed(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, size)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < size; i++ {
		random[i] = byte(r.Uint32())
	}
	header := func(flags, count uint16) func(int) []byte { // a page that says what it is, and is random
		return func(page int) []byte {
			b := slices.Clone(random)
			copy(b, []byte{byte(page), byte(page >> 8), 0, 0, 0, 0, 0, 0, byte(flags), 0, byte(count), byte(count >> 8), 0, 0, 0, 0})
			return b
		}
	}
	damages := map[string]func(page int) []byte{
		"5a":       func(int) []byte { return bytes.Repeat([]byte{0x5a}, size) },
		"zeros":    func(int) []byte { return make([]byte, size) },
		"ones":     func(int) []byte { return bytes.Repeat([]byte{0xff}, size) },
		"random":   func(int) []byte { return random },
		"branch":   header(1, 7),
		"leaf":     header(2, 7),
		"big leaf": header(2, 0xfff0),
		"freelist": header(0x10, 7),
		"other":    func(page int) []byte { at := len(sound) - size - page/2*size; return sound[at : at+size] },
		"cut":      nil,
	}
	lost := 0
	for name, damage := range damages {
		for page := range len(sound) / size {
			was := slices.Clone(sound)
			if damage == nil {
				was = was[:page*size+100]
			} else {
				copy(was[page*size:], damage(page))
			}
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
			l, said := opened(t, path, dir)
			whole := len(l.leases.Leases("")) == n && len(l.held.List("")) == n-2
			aside, err := os.ReadFile(path + ".damaged")
			switch {
			case !whole && !strings.Contains(said, "cannot be read") && page > 1: // of two metas one is enough
				t.Errorf("%s in page %d: %d leases and %d items are left, and it says %q", name, page, len(l.leases.Leases("")), len(l.held.List("")), said)
			case strings.Contains(said, "put aside") && !bytes.Equal(aside, was):
				t.Errorf("%s in page %d: what was put aside is not what was there (%v)", name, page, err)
			}
			if err == nil {
				lost++
				os.Remove(path + ".damaged")
			}
			kept(t, l, 20) // which uses free pages
			l.closed(t)
		}
	}
	if lost < 30 {
		t.Errorf("only %d damages were noticed", lost)
	}
}

// TestBookAside keeps what was put aside before, and gives each a name of its own.
func TestBookAside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugs.db")
	for _, want := range []string{".damaged", ".damaged.1", ".damaged.2"} {
		if err := os.WriteFile(path, []byte(want+strings.Repeat(" no database", 2000)), 0o600); err != nil {
			t.Fatal(err)
		}
		l, said := opened(t, path, dir)
		l.closed(t)
		if text, err := os.ReadFile(path + want); err != nil || !strings.HasPrefix(string(text), want) || !strings.Contains(said, path+want) {
			t.Errorf("%s: %.20q, %v; said %s", want, text, err, said)
		}
	}
}

// TestBookForThisRun serves a copy where the disk cannot be written, sound or damaged, and
// takes it away at the end.
func TestBookForThisRun(t *testing.T) {
	dir := t.TempDir()
	disk, run := filepath.Join(dir, "disk"), filepath.Join(dir, "run")
	for _, d := range []string{disk, run} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path, copied := filepath.Join(disk, "plugs.db"), filepath.Join(run, "plugs.db")
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	mount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", disk, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	try := func(name string, leases int, want ...string) {
		t.Helper()
		before, _ := os.ReadFile(path)
		l, said := opened(t, path, run)
		if l.db.path != copied || len(l.leases.Leases("")) != leases {
			t.Errorf("%s: %d leases in %s", name, len(l.leases.Leases("")), l.db.path)
		}
		for _, w := range append(want, "for this run") {
			if !strings.Contains(said, w) {
				t.Errorf("%s: said %s; want %s", name, said, w)
			}
		}
		kept(t, l, 20)
		l.closed(t)
		after, _ := os.ReadFile(path)
		if _, err := os.Stat(copied); err == nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the copy stays (%v), or the file changed", name, err)
		}
	}
	mount(unix.MS_RDONLY)
	try("read-only and empty", 0, "read-only")
	mount(0)
	l, _ := opened(t, path, run)
	kept(t, l, 20)
	l.closed(t)
	mount(unix.MS_RDONLY)
	try("read-only", 20, "read-only")
	mount(0)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(disk, "full")
	os.Remove(path)
	if err := os.WriteFile(full, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	try("full and empty", 0, "no space")
	os.Remove(full)
	if err := os.WriteFile(path, append(sound[:8192:8192], make([]byte, len(sound)-8192)...), 0o600); err != nil {
		t.Fatal(err)
	}
	mount(unix.MS_RDONLY)
	try("read-only and damaged", 0, "cannot be read", "stays where it is")

	// One that somebody else has open is not waited for longer than a second.
	mount(0)
	os.WriteFile(path, sound, 0o600)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	try("locked", 20, "timeout")
}
