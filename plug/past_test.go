package plug

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
	"vswitch/plug/wire"
)

func pastAt(t *testing.T, path string) *Past { return pastIn(t, path, "boot 1") }

func pastIn(t *testing.T, path, boot string) *Past {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPast(db, boot)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Past) bolt() *bbolt.DB { return p.db.(*bbolt.DB) }

// again is what is there after a restart.
func (p *Past) again(t *testing.T) *Past {
	t.Helper()
	path := p.bolt().Path()
	if err := p.bolt().Close(); err != nil {
		t.Fatal(err)
	}
	return pastAt(t, path)
}

// TestPastPruned forgets what is not wanted any more, in memory and on disk, and whatever
// cannot be read.
func TestPastPruned(t *testing.T) {
	p := pastAt(t, filepath.Join(t.TempDir(), "db"))
	for _, name := range []string{"a", "b", "c"} {
		p.see("docker:" + name + " eth1")
		p.make(name+"-1", wire.Spec{Host: name})
	}
	err := p.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(madeBucket).Put([]byte("d-1"), []byte("{")) })
	if err != nil {
		t.Fatal(err)
	}
	p = p.again(t)
	p.Prune(map[string]bool{"docker:a eth1": true, "docker:new eth1": true}, map[string]bool{"b-1": true, "d-1": true})
	for range 2 {
		if !reflect.DeepEqual(p.owners, map[string]string{"docker:a eth1": "boot 1"}) || len(p.specs) != 1 || p.made("b-1") == nil || p.made("b-1").Host != "b" {
			t.Errorf("left are %v and %v", p.owners, p.specs)
		}
		p.db.View(func(tx *bbolt.Tx) error {
			if n := tx.Bucket(madeBucket).Stats().KeyN; n != 1 {
				t.Errorf("%d records of what was made", n)
			}
			return nil
		})
		p = p.again(t)
	}
	p.Prune(nil, nil)
	if p = p.again(t); len(p.owners)+len(p.specs) != 0 {
		t.Errorf("left are %v and %v", p.owners, p.specs)
	}
	p.bolt().Close()
}

// TestPastAsked answers while the disk does not.
func TestPastAsked(t *testing.T) {
	p := pastAt(t, filepath.Join(t.TempDir(), "db"))
	p.see("a")
	tx, err := p.bolt().Begin(true) // until it ends, nobody writes
	if err != nil {
		t.Fatal(err)
	}
	var changing sync.WaitGroup
	changing.Go(func() { p.see("b") })
	changing.Go(func() { p.make("b-1", wire.Spec{Host: "b"}) })
	answered := make(chan struct{})
	go func() {
		for { // both wait for the disk now
			if once, _ := p.seen("b"); once && p.made("b-1") != nil {
				break
			}
		}
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(5 * time.Second):
		t.Error("who asks waits for the disk")
	}
	tx.Rollback()
	changing.Wait()
	<-answered
	if p = p.again(t); len(p.owners) != 2 || p.made("b-1") == nil {
		t.Errorf("kept are %v and %v", p.owners, p.specs)
	}
	p.bolt().Close()
}

// TestPastTogether has many change the same few things at once: on disk is what is in
// memory in the end.
func TestPastTogether(t *testing.T) {
	p := pastAt(t, filepath.Join(t.TempDir(), "db"))
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 200 {
				key := fmt.Sprint(r.IntN(4))
				switch r.IntN(9) {
				case 0, 1:
					p.see(key)
				case 2, 3:
					p.forget(key)
				case 4, 5:
					p.make(key, wire.Spec{Host: key, MTU: r.IntN(3)})
				case 6, 7:
					p.unmake(key)
				default:
					p.Prune(map[string]bool{key: true}, map[string]bool{key: true})
				}
			}
		})
	}
	all.Wait()
	owners, specs := p.owners, p.specs
	p = p.again(t)
	if !reflect.DeepEqual(p.owners, owners) || !reflect.DeepEqual(p.specs, specs) {
		t.Errorf("on disk are %v and %v; in memory were %v and %v", p.owners, p.specs, owners, specs)
	}
	p.bolt().Close()
}

// TestBoot: what a boot has still to make is waited for, if the operator wants it; what
// Docker does not know is gone, and so are a runtime's leftovers and what was there since
// the boot.
func TestBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	ref := func(kind, name string) config.ContainerRef { return config.ContainerRef{Kind: kind, Name: name} }
	wants := []Want{
		wanted("later", ref("netns", "later"), "10.0.0.0/24"), wanted("there", ref("path", "/ns/there"), "10.0.0.0/24"),
		wanted("removed", ref("docker", "removed"), "10.0.0.0/24"), wanted("since", ref("netns", "since"), "10.0.0.0/24"),
		wanted("cni", ref("path", "/ns/cni"), "10.0.0.0/24"),
	}
	wants[4].Owner = "cni"
	past := pastIn(t, path, "boot 0")
	for i := range wants {
		past.see(wants[i].owner())
	}
	past.bolt().Close()
	past = pastAt(t, path)
	past.see(wants[3].owner())
	past.bolt().Close()

	w := newWorld()
	k, _ := w.keeper(t, path, 50*time.Millisecond)
	k.Set(wants)
	until(t, "word of those that are gone", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		gone := slices.Clone(w.gone)
		slices.Sort(gone)
		return slices.Equal(slices.Compact(gone), []string{"cni", "removed", "since"})
	})
	for _, port := range []string{"later", "there"} {
		if st, _ := k.State(port); st.State != Waiting || strings.Contains(st.Reason, "unplugged") {
			t.Errorf("%s is %+v", port, st)
		}
	}
	w.run(wants[0].Plug.Container, "/ns/later")
	k.LookAt(wants[0].Plug.Container)
	until(t, "the late one", func() bool { st, _ := k.State("later"); return st.State == Plugged })
	w.remove(wants[0].Plug.Container)
	k.LookAt(wants[0].Plug.Container)
	until(t, "word that it is gone, too", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return slices.Contains(w.gone, "later") })
}
