package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// numbered is a document that says which version it is to be, and is as large as
// ports makes it.
func numbered(n, ports int) config.Document {
	b := config.Bridge{Name: "br0", Options: config.Options{"mac-aging-time": fmt.Sprint(n)}}
	for i := range ports {
		b.Ports = append(b.Ports, config.Port{Name: fmt.Sprint("veth", i), Options: config.Options{"tag": fmt.Sprint(i % 4095)}})
	}
	return config.Document{Bridges: []config.Bridge{b}}
}

func number(d config.Document) int {
	if len(d.Bridges) == 0 {
		return 0
	}
	return d.Bridges[0].Options.Int("mac-aging-time")
}

func mustOpen(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustPut(t testing.TB, s *Store, n int) {
	t.Helper()
	if _, err := s.Put(numbered(n, 3), fmt.Sprint("put ", n), PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// wantCurrent wants version v, holding the document numbered v.
func wantCurrent(t testing.TB, s *Store, v int) {
	t.Helper()
	got, doc := s.Current()
	if got != uint64(v) || number(doc) != v {
		t.Fatalf("current is version %d with document %d, want %d", got, number(doc), v)
	}
}

func TestVersions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	s := mustOpen(t, dir, Options{Keep: 4})
	wantCurrent(t, s, 0)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if len(s.Warnings()) != 0 || s.ReadOnly() || len(s.History()) != 0 {
		t.Errorf("a new store: %v", s.Warnings())
	}
	for n := 1; n <= 10; n++ {
		mustPut(t, s, n)
		wantCurrent(t, s, n)
	}
	check := func(s *Store) {
		t.Helper()
		wantCurrent(t, s, 10)
		h := s.History()
		if len(h) != 4 || h[0].Version != 10 || h[3].Version != 7 || h[0].Comment != "put 10" || time.Since(h[0].Time) > time.Minute {
			t.Errorf("history: %+v", h)
		}
		for v := uint64(7); v <= 10; v++ {
			if d, err := s.Get(v); err != nil || number(d) != int(v) {
				t.Errorf("version %d is document %d, %v", v, number(d), err)
			}
		}
		for _, v := range []uint64{0, 6, 11} {
			if _, err := s.Get(v); !errors.Is(err, ErrNoVersion) {
				t.Errorf("version %d: %v", v, err)
			}
		}
	}
	check(s)
	text, err := os.ReadFile(filepath.Join(dir, yamlName))
	if err != nil || !strings.Contains(string(text), "# version: 10\n") || !strings.Contains(string(text), "\n    mac-aging-time: 10\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(numbered(1, 1), "", PutOptions{}); err == nil {
		t.Error("a closed store takes a document")
	}
	s = mustOpen(t, dir, Options{Keep: 4})
	check(s)
	if len(s.Warnings()) != 0 {
		t.Errorf("%v", s.Warnings())
	}
	// What is handed out is the caller's.
	_, d := s.Current()
	d.Bridges[0].Options["mac-aging-time"] = "1"
	wantCurrent(t, s, 10)

	if _, err := s.Put(config.Document{Bridges: []config.Bridge{{Name: "/"}}}, "", PutOptions{}); err == nil {
		t.Error("a document that is not valid was stored")
	}
	if _, err := s.Put(numbered(11, 0), strings.Repeat("é\n", 9000), PutOptions{}); err != nil {
		t.Error(err)
	}
	if c := s.History()[0].Comment; len(c) > maxComment || strings.Contains(c, "\n") || !strings.HasPrefix(c, "é é") {
		t.Errorf("comment of %d bytes", len(c))
	}
}

func TestPending(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keep: 2})
	mustPut(t, s, 1)
	deadline := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for n := 2; n <= 5; n++ { // Previous stays 1, and is kept however many come
		if _, err := s.Put(numbered(n, 0), "", PutOptions{Deadline: deadline}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = mustOpen(t, dir, Options{Keep: 2})
	p, waits := s.Pending()
	if !waits || p != (Pending{Version: 5, Previous: 1, Deadline: deadline}) {
		t.Fatalf("%+v, %v", p, waits)
	}
	if d, err := s.Get(p.Previous); err != nil || number(d) != 1 {
		t.Fatalf("version to go back to: %d, %v", number(d), err)
	}
	if err := s.ClearPending(); err != nil {
		t.Fatal(err)
	}
	if _, waits := s.Pending(); waits {
		t.Error("still pending")
	}
	s.Close()
	s = mustOpen(t, dir, Options{Keep: 2})
	if _, waits := s.Pending(); waits {
		t.Error("pending again")
	}
	wantCurrent(t, s, 5)
	if err := s.ClearPending(); err != nil {
		t.Error(err)
	}
	if _, err := s.Put(numbered(6, 0), "", PutOptions{Deadline: deadline}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, 7)
	if _, waits := s.Pending(); waits {
		t.Error("pending after a Put for good")
	}
}

func TestFirstVersionPending(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	if _, err := s.Put(numbered(1, 0), "", PutOptions{Deadline: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, dir, Options{})
	if p, waits := s.Pending(); !waits || p.Previous != 0 {
		t.Errorf("%+v, %v: want to go back to the empty document", p, waits)
	}
}

func TestTwoOpens(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	mustPut(t, s, 1)
	began := time.Now()
	_, err := Open(dir, Options{})
	var used *InUseError
	if !errors.As(err, &used) || err.Error() != fmt.Sprintf("state directory %s is in use by vswitchd (pid %d)", dir, os.Getpid()) {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("said after %v", d)
	}
	mustPut(t, s, 2) // the first is none the worse
	s.Close()

	db, err := bbolt.Open(filepath.Join(dir, dbName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Open(dir, Options{}); err == nil || err.Error() != "state directory "+dir+" is in use by another program" {
		t.Error(err)
	}
	db.Close()
	wantCurrent(t, mustOpen(t, dir, Options{}), 2)
}

// TestFiles goes through what an operator or a crash may leave.
func TestFiles(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(dir string) error
		version int
		warning string // part of the only one
		err     string // part of it
	}{
		{"as it was", func(string) error { return nil }, 2, "", ""},
		{"no desired.yaml", remove(yamlName), 2, "", ""},
		{"no database", remove(dbName), 2, "there was no vswitch.db; version 2 was recovered from desired.yaml, its history is lost", ""},
		{"neither", func(dir string) error { return errors.Join(remove(dbName)(dir), remove(yamlName)(dir)) }, 0, "", ""},
		{"empty database", write(dbName, ""), 2, "there was no vswitch.db; version 2 was recovered", ""},
		{"garbage", write(dbName, strings.Repeat("garbage ", 5000)), 2, "is damaged: neither meta page is valid; version 2 was recovered from desired.yaml, its history is lost; the database was moved to vswitch.db.corrupt-", ""},
		{"garbage and no yaml", func(dir string) error { return errors.Join(write(dbName, "garbage")(dir), remove(yamlName)(dir)) }, 0, "",
			"is damaged: neither meta page is valid; there is no desired.yaml to recover from (move vswitch.db away to begin with an empty configuration)"},
		{"garbage and bad yaml", func(dir string) error {
			return errors.Join(write(dbName, "garbage")(dir), write(yamlName, "brigdes: []")(dir))
		}, 0, "", "desired.yaml cannot be used: line 1"},
		{"no database and bad yaml", func(dir string) error { return errors.Join(remove(dbName)(dir), write(yamlName, "")(dir)) }, 0, "", "there is no vswitch.db; and "},
		{"yaml by hand", write(yamlName, "bridges: []"), 2, "", ""},
		{"old database", func(dir string) error { return os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, dbName)) }, 2,
			"it ends at version 1, and desired.yaml is at version 2; version 2 was recovered", ""},
		{"left over", func(dir string) error {
			return errors.Join(write(yamlName+".tmp", "x")(dir), write(dbName+".new", "x")(dir))
		}, 2, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{})
			mustPut(t, s, 1)
			s.Close()
			old, err := os.ReadFile(filepath.Join(dir, dbName))
			if err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir, Options{})
			mustPut(t, s, 2)
			s.Close()
			if err := os.WriteFile(filepath.Join(dir, "old"), old, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			s, err = Open(dir, Options{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			wantCurrent(t, s, c.version)
			w := strings.Join(s.Warnings(), "\n")
			if (w == "") != (c.warning == "") || !strings.Contains(w, c.warning) {
				t.Errorf("warnings: %s", w)
			}
			mustPut(t, s, c.version+1)
			s.Close()
			s = mustOpen(t, dir, Options{})
			wantCurrent(t, s, c.version+1)
			if len(s.Warnings()) != 0 {
				t.Errorf("warned again: %v", s.Warnings())
			}
			if d, err := readDesired(filepath.Join(dir, yamlName)); err != nil || d.changed || d.entry.Version != uint64(c.version+1) {
				t.Errorf("desired.yaml: %+v, %v", d.entry, err)
			}
		})
	}
}

func remove(name string) func(string) error {
	return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
}

func write(name, text string) func(string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
}

// TestReadersAndWriters is for the race detector, and wants versions in order.
func TestReadersAndWriters(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{Keep: 5})
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Go(func() { // ends with done
			last := uint64(0)
			for {
				v, doc := s.Current()
				if v < last || number(doc) != int(v) {
					t.Errorf("version %d with document %d after %d", v, number(doc), last)
				}
				if err := doc.Validate(); err != nil {
					t.Error(err)
				}
				last = v
				for _, e := range s.History() {
					if d, err := s.Get(e.Version); err == nil && number(d) != int(e.Version) {
						t.Errorf("version %d is document %d", e.Version, number(d))
					}
				}
				s.Pending()
				s.Warnings()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := 1; n <= 30; n++ {
		mustPut(t, s, n)
	}
	close(done)
	readers.Wait()
}

func BenchmarkPut(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	doc := numbered(1, 1000)
	for b.Loop() {
		if _, err := s.Put(doc, "", PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
