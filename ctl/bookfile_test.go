package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
	"vswitch/plug/ipam"
)

// holds is what is in a book.
func (l *plugBook) holds() string {
	var all strings.Builder
	for _, lease := range l.leases.Leases("") {
		fmt.Fprintln(&all, lease.Pool, lease.Addr, lease.Owner, lease.Since.UTC())
	}
	for _, item := range l.held.List("") {
		fmt.Fprintln(&all, item.Owner, item.Key, item.Bridge)
	}
	return all.String()
}

// TestBookDamagedWhileOpen overwrites each page of a file under the daemon's hands, and goes on
// leasing: nothing panics or hangs, what was given stays given, and the next start finds it.
func TestBookDamagedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugs.db")
	l, _ := opened(t, path, dir)
	kept(t, l, 60)
	size := l.db.db.Info().PageSize
	l.closed(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	subnet := netip.MustParsePrefix("10.0.0.0/16")
	pool := ipam.Pool{Name: "br0", Pool: config.Pool{Subnet: subnet, Range: subnet}}
	quiet := slog.New(slog.DiscardHandler)
	met := 0
	for page := range len(sound) / size {
		junks := []byte{0, 0x5a, 0xff}
		if page > 8 {
			junks = junks[page%3 : page%3+1]
		}
		for _, junk := range junks {
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			l, _ := opened(t, path, dir)
			l.db.db.NoSync = true
			ctx, cancel := context.WithCancel(t.Context())
			mending := make(chan struct{})
			go func() { // ends with ctx
				defer close(mending)
				l.mend(ctx, quiet)
			}()
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte{junk}, size), int64(page*size)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			for i := range 5 {
				owner := fmt.Sprintf("docker:new%d eth1", i)
				lab.Eventually(t, 10*time.Second, func() error {
					_, err := l.leases.Lease(pool, owner, nil)
					if err != nil && !errors.Is(err, errBookDamaged) {
						t.Error(err)
					}
					return err
				})
				lab.Eventually(t, 10*time.Second, func() error { return l.held.Change(nil, "cni", []string{fmt.Sprintf("k%03d", 10*i+5)}) })
			}
			for _, lease := range l.leases.Leases("")[:3] {
				lab.Eventually(t, 10*time.Second, func() error { return l.leases.ReleaseAddr(lease.Pool, lease.Addr) })
			}
			if l.db.warning() != "" {
				met++
				if !strings.Contains(l.db.warning(), "damaged") {
					t.Errorf("show warns %q", l.db.warning())
				}
			}
			cancel()
			<-mending
			before := l.holds()
			l.closed(t)
			again, told := opened(t, path, dir)
			if after := again.holds(); after != before || strings.Contains(told, "damaged") {
				t.Errorf("page %d, %#x: there was\n%s\nand is\n%s\nsaid %s", page, junk, before, after, told)
			}
			again.closed(t)
			aside, _ := filepath.Glob(path + ".damaged*")
			for _, a := range aside {
				os.Remove(a)
			}
		}
	}
	if met < 5 {
		t.Errorf("%d damages were met: the test damages nothing", met)
	}
	t.Logf("%d pages: %d damages were met", len(sound)/size, met)
}

// TestBookRewritten has the freed addresses keep their order in a file that is written anew,
// and what was refused meanwhile go well again.
func TestBookRewritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugs.db")
	l, _ := opened(t, path, dir)
	subnet := netip.MustParsePrefix("10.0.0.0/29")
	pool := ipam.Pool{Name: "br0", Pool: config.Pool{Subnet: subnet, Range: subnet}}
	lease := func(l *plugBook, owner string) string {
		t.Helper()
		a, err := l.leases.Lease(pool, owner, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.String()
	}
	addrs := map[string]string{}
	for _, owner := range []string{"a", "b", "c", "d", "e", "f"} {
		addrs[owner] = lease(l, owner)
	}
	for _, owner := range []string{"d", "b", "f"} {
		if err := l.leases.Release("", owner); err != nil {
			t.Fatal(err)
		}
	}
	_ = l.db.with(func(*bbolt.DB) error { // that takes long
		if w := l.db.warning(); w != "" {
			t.Errorf("show warns %q", w)
		}
		return l.db.giveUp("a test says so")
	})
	if _, err := l.leases.Lease(pool, "g", nil); !errors.Is(err, errBookDamaged) {
		t.Errorf("leased in a file that is given up: %v", err)
	}
	if !strings.Contains(l.db.warning(), "nothing can be leased") {
		t.Errorf("show warns %q", l.db.warning())
	}
	<-l.db.broke
	if err := l.rewrite(); err != nil {
		t.Fatal(err)
	}
	if w := l.db.warning(); !strings.Contains(w, "written anew") || !strings.Contains(w, path+".damaged") {
		t.Errorf("show warns %q", w)
	}
	l.closed(t)
	l, _ = opened(t, path, dir)
	defer func() { l.closed(t) }()
	got := []string{lease(l, "g"), lease(l, "h"), lease(l, "i")}
	if want := []string{addrs["d"], addrs["b"], addrs["f"]}; !reflect.DeepEqual(got, want) {
		t.Errorf("given are %v; freed were, in order, %v", got, want)
	}

	// What no transaction meets is found when the file is closed.
	size := l.db.db.Info().PageSize
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(bytes.Repeat([]byte{0x5a}, 6*size), int64(2*size)); err != nil {
		t.Fatal(err)
	}
	before := l.holds()
	l.closed(t)
	l, _ = opened(t, path, dir)
	if after := l.holds(); after != before || before == "" {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}
}

// TestBookHeads damages what only bbolt's Check reads: that one page says it has a great many, and
// that the list of free pages is not there. To close and to open the file ends all the same, soon.
func TestBookHeads(t *testing.T) {
	for _, what := range []string{"leaf", "freelist", "end"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "plugs.db")
		l, _ := opened(t, path, dir)
		kept(t, l, 60)
		size := l.db.db.Info().PageSize
		at, last := int64(0), int64(0)
		_ = l.db.View(func(tx *bbolt.Tx) error {
			for id := 2; ; id++ {
				p, err := tx.Page(id)
				if err != nil || p == nil {
					return err
				}
				if p.Type == what || what == "end" && p.Type != "free" {
					at = int64(id * size)
				}
				if p.Type == "freelist" {
					last = int64(id * size)
				}
			}
		})
		if what == "end" {
			if at != last {
				continue // the list is not the last page
			}
			if err := os.Truncate(path, at); err != nil {
				t.Fatal(err)
			}
		} else {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0x7f}, at+12); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		damaged, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before := l.holds()
		l.closed(t)
		l, _ = opened(t, path, dir)
		if after := l.holds(); after != before || before == "" {
			t.Errorf("%s: there was\n%s\nand is\n%s", what, before, after)
		}
		l.closed(t)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		l, told := opened(t, path, dir)
		if !strings.Contains(told, "put aside") {
			t.Errorf("%s: said %q", what, told)
		}
		l.closed(t)
	}
}
