package store

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// spoil damages bytes as disks and people do. It never touches the length to
// nothing: an empty file is another case.
func spoil(rng *rand.Rand, text []byte) []byte {
	text = append([]byte(nil), text...)
	at := rng.IntN(len(text))
	if rng.IntN(2) == 0 { // what is in use is mostly at the begin of pages
		at = at&^4095 + rng.IntN(128)
	}
	switch rng.IntN(6) {
	case 0:
		text[at] ^= 1 << rng.IntN(8)
	case 1:
		text[at] = byte(rng.Uint32())
	case 2:
		for i := at; i < min(at+1+rng.IntN(64), len(text)); i++ {
			text[i] = byte(rng.Uint32())
		}
	case 3:
		page := at &^ 4095
		clear(text[page:min(page+4096, len(text))])
	case 4:
		text = text[:1+at]
	case 5: // a page written to the wrong place
		from := rng.IntN(len(text)) &^ 4095
		copy(text[at&^4095:], text[from:min(from+4096, len(text))])
	}
	return text
}

// TestDamage: whatever happens to the database, the last document is brought
// back from desired.yaml; without that, Open gives a document that was current
// (the last, or the one before when the last meta page is lost) or says why not.
// What opens takes a new version and opens again.
func TestDamage(t *testing.T) {
	sound := t.TempDir()
	s := mustOpen(t, sound, Options{Keep: 20})
	const last = 30
	for n := 1; n <= last; n++ {
		if _, err := s.Put(numbered(n, n*7), "", PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	db, err := os.ReadFile(filepath.Join(sound, dbName))
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(filepath.Join(sound, yamlName))
	if err != nil {
		t.Fatal(err)
	}
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	base := t.TempDir()
	recovered, refused, unharmed := 0, 0, 0
	for round := range rounds {
		rng := rand.New(rand.NewPCG(7, uint64(round)))
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		withYAML := rng.IntN(2) == 0
		if err := os.WriteFile(filepath.Join(dir, dbName), spoil(rng, db), 0o600); err != nil {
			t.Fatal(err)
		}
		if withYAML {
			if err := os.WriteFile(filepath.Join(dir, yamlName), yaml, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir, Options{Keep: 20})
		switch {
		case err != nil && withYAML:
			t.Fatalf("round %d: %v", round, err)
		case err != nil:
			if !errors.Is(err, errDamaged) {
				t.Fatalf("round %d: %v", round, err)
			}
			refused++
			os.RemoveAll(dir)
			continue
		case len(s.Warnings()) > 0:
			recovered++
		default:
			unharmed++
		}
		version, doc := s.Current()
		if int(version) != number(doc) || version != last && (withYAML || version != last-1) {
			t.Fatalf("round %d: version %d with document %d; %v", round, version, number(doc), s.Warnings())
		}
		for _, e := range s.History() {
			if d, err := s.Get(e.Version); err == nil && number(d) != int(e.Version) {
				t.Fatalf("round %d: version %d is document %d", round, e.Version, number(d))
			}
		}
		mustPut(t, s, int(version)+1)
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s = mustOpen(t, dir, Options{Keep: 20})
		wantCurrent(t, s, int(version)+1)
		s.Close()
		os.RemoveAll(dir)
	}
	t.Logf("%d recovered from desired.yaml, %d refused without one, %d not harmed", recovered, refused, unharmed)
	if recovered < rounds/10 || refused < rounds/10 || unharmed == 0 {
		t.Error("the damage done is not what this test is for")
	}
}

// FuzzVerify: what verify passes, bbolt reads to the end and writes to without a
// fault. Inputs are edits of a sound file: places and bytes.
func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	for round := range 3 {
		if err := db.Update(func(tx *bbolt.Tx) error {
			for n := range 40 {
				doc := numbered(n+1, n%9)
				if err := writeVersion(tx, doc, Entry{Version: uint64(n*(round+1) + 1)}, state{Format: format, Current: 1}, nil); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			f.Fatal(err)
		}
	}
	db.Close()
	sound, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := verify(path); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 1, 8, 1, 0, 12, 10, 4})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, edits []byte) {
		text := append([]byte(nil), sound...)
		for len(edits) >= 4 {
			// page, place in it (favouring headers and elements), value
			at := (int(edits[0])*1024 + int(edits[1])&3*256 + int(edits[2])) % len(text)
			text[at] ^= edits[3]
			edits = edits[4:]
		}
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		file.Close()
		if err := verify(file.Name()); err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatal(err)
			}
			return
		}
		err = guard(func() error {
			db, err := bbolt.Open(file.Name(), 0o600, &bbolt.Options{NoSync: true})
			if err != nil {
				return nil // it says so, and does not fault
			}
			defer db.Close()
			return db.Update(func(tx *bbolt.Tx) error {
				var names [][]byte
				if err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
					names = append(names, append([]byte(nil), name...))
					return b.ForEach(func(k, v []byte) error { return nil })
				}); err != nil {
					return err
				}
				for _, name := range names {
					if err := tx.Bucket(name).Put([]byte("another"), make([]byte, 3000)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			t.Fatalf("verify passed it: %v\n%s", err, stackOf(err))
		}
	})
}

// TestFaultInUse: pages that go away under the daemon (a failing disk; here the
// file is cut) cost the store, not the process, and the next Open recovers.
func TestFaultInUse(t *testing.T) {
	for _, use := range []string{"Get", "Put", "ClearPending"} {
		t.Run(use, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{})
			for n := 1; n <= 5; n++ {
				if _, err := s.Put(numbered(n, 500), "", PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if use == "ClearPending" {
				s.pending = &Pending{Version: 5, Previous: 4}
			}
			if err := os.Truncate(filepath.Join(dir, dbName), 0); err != nil {
				t.Fatal(err)
			}
			var err error
			switch use {
			case "Get":
				_, err = s.Get(2)
			case "Put":
				_, err = s.Put(numbered(6, 1), "", PutOptions{})
			case "ClearPending":
				err = s.ClearPending()
			}
			if !errors.Is(err, errDamaged) || len(s.Warnings()) != 1 {
				t.Errorf("%v; %v", err, s.Warnings())
			}
			wantCurrent(t, s, 5)
			if _, err := s.Put(numbered(6, 1), "", PutOptions{}); err == nil {
				t.Error("a store that is damaged takes a document")
			}
			s.Close()
			wantCurrent(t, mustOpen(t, dir, Options{}), 5)
		})
	}
}

func stackOf(err error) []byte {
	var f *faultError
	errors.As(err, &f)
	return f.stack
}
