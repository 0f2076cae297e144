package held

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

func open(t *testing.T, path string) (*Store, *bbolt.DB) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

var some = []Item{
	{Owner: "docker", Key: "network/n1", Bridge: "vs-n1", Makes: true, Options: config.Options{"ip": "10.1.0.1/24", "nat": "masquerade"}, Data: json.RawMessage(`{"a":1}`)},
	{Owner: "docker", Key: "endpoint/e1", Bridge: "vs-n1", Ports: []config.Port{{Name: "e1", Type: "plug", Options: config.Options{"container": "runtime:e1", "tag": "10"}}}},
	{Owner: "cni", Key: "c1/eth0", Bridge: "br0", Ports: []config.Port{{Name: "c1", Type: "plug", Options: config.Options{"container": "/run/netns/c1"}}}},
}

// TestKept has what was asked for be there after a restart, all of it.
func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, db := open(t, path)
	if err := s.Change(some, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Change(nil, "cni", []string{"c1/eth0", "nobody"}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s, db = open(t, path)
	defer db.Close()
	all := s.List("")
	if len(all) != 2 {
		t.Fatalf("%d items: %v", len(all), all)
	}
	for _, want := range some[:2] {
		if got, ok := s.Get(want.Owner, want.Key); !ok || !got.Equal(want) {
			t.Errorf("%s is %+v, was %+v", want.Key, got, want)
		}
	}
	if len(s.List("cni")) != 0 || len(s.List("docker")) != 2 {
		t.Errorf("by owner: %v, %v", s.List("cni"), s.List("docker"))
	}
}

// TestNotKept changes nothing when the disk does not.
func TestNotKept(t *testing.T) {
	s, db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := s.Change(some[:1], "", nil); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := s.Change(some[1:], "docker", []string{"network/n1"}); !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		t.Errorf("error %v", err)
	}
	if len(s.List("")) != 1 {
		t.Errorf("items %v", s.List(""))
	}
}

// TestDamaged reads what is sound beside what is not, and leaves that where it is.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, db := open(t, path)
	if err := s.Change(some, "", nil); err != nil {
		t.Fatal(err)
	}
	damaged := map[string]string{"docker\x00network/n1": `{"owner":`, "cni\x00x": `{"owner":"cni","key":"y"}`, "\xff": "", "cni\x00n": "null", "cni\x00p": `{"owner":"cni","key":"p","ports":[7]}`}
	err := db.Update(func(tx *bbolt.Tx) error {
		for k, v := range damaged {
			if err := tx.Bucket(bucket).Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	for range 2 { // they are there the next time, too
		s, db = open(t, path)
		told := s.Damaged()
		if len(told) != len(damaged) || len(s.List("")) != 2 {
			t.Errorf("damaged %q; sound %v", told, s.List(""))
		}
		for k := range damaged {
			if !slices.ContainsFunc(told, func(text string) bool { return strings.Contains(text, strconv.Quote(k)) }) {
				t.Errorf("%q is not in %q", k, told)
			}
		}
		if err := s.Change(some[1:2], "", nil); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
}

// TestExpand puts pieces where they belong, tells what has no place, and leaves the
// operator's document as it is.
func TestExpand(t *testing.T) {
	doc, err := config.Parse([]byte("bridges: [{name: br0, ports: [{name: veth1}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	before := doc.Clone()
	out, misfits := Expand(doc, some)
	if len(misfits) != 0 || !doc.Equal(before) {
		t.Errorf("misfits %v; the document is %v", misfits, doc)
	}
	if b := out.Bridge("vs-n1"); b == nil || b.Port("e1") == nil || b.Options["nat"] != "masquerade" {
		t.Errorf("vs-n1 is %+v", b)
	}
	if b := out.Bridge("br0"); b.Port("c1") == nil || b.Port("veth1") == nil || !slices.IsSortedFunc(b.Ports, func(x, y config.Port) int { return len(x.Name) - len(y.Name) }) {
		t.Errorf("br0 is %+v", b)
	}
	taken, err := config.Parse([]byte("bridges: [{name: vs-n1}, {name: br1, ports: [{name: c1}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	out, misfits = Expand(taken, some)
	if len(misfits) != 2 || out.Bridge("vs-n1").Options["nat"] != "" {
		t.Errorf("misfits %v", misfits)
	}
	if out, misfits := Expand(doc, nil); len(misfits) != 0 || !out.Equal(doc) {
		t.Error("nothing changes something")
	}
}
