package ipam

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// reopened puts raw records into a store's file, and opens it.
func reopened(t testing.TB, raw map[string]string) (*Store, *bbolt.DB) {
	t.Helper()
	_, db := lazy(t)
	err := db.Update(func(tx *bbolt.Tx) error {
		for k, v := range raw {
			if err := tx.Bucket(bucket).Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

func TestDamagedRecords(t *testing.T) {
	lease := `{"pool":"br0","address":"10.0.0.4","owner":"d","since":"2026-01-02T03:04:05Z"}`
	s, db := reopened(t, map[string]string{
		"br0\x0010.0.0.1":   `{"pool":"br0","address":"10.0.0.1","owner":"a","since":"2026-01-02T03:04:05Z"}`,
		"br0\x0010.0.0.2":   `{"pool":"br0","addr`,
		"br0\x0010.0.0.3":   `{"pool":"br0","address":"10.0.0.9","owner":"c","since":"2026-01-02T03:04:05Z"}`,
		"b\xffr0\x0010.0.0": lease,
		"br0\x00010.0.0.5":  strings.Replace(lease, "10.0.0.4", "10.0.0.1", 1), // whose sound record is there
		"rubbish":           "more rubbish",
		"br0\x0010.0.0.6":   `{"pool":"br0","address":"10.0.0.6","owner":"f","since":"2026-01-02T03:04:05Z","freed":"2026-01-02T04:04:05Z"}`,
	})
	if d := s.Damaged(); len(d) != 5 {
		t.Errorf("%d: %q", len(d), d)
	}
	p := pool("br0", "10.0.0.0/29")
	if got := all(t, s, p); strings.Join(got, " ") != "10.0.0.5 10.0.0.6" {
		t.Error("gave", got)
	}
	if err := s.Reserve("br0", addr("10.0.0.4"), "x"); err == nil || !strings.Contains(err.Error(), DamagedOwner) {
		t.Error(err)
	}
	if l := s.Of("a"); len(l) != 1 || l[0].Addr != addr("10.0.0.1") {
		t.Error(l)
	}
	// The operator frees one; its record is a sound one then.
	for _, a := range []string{"10.0.0.2", "10.0.0.4"} {
		if err := s.ReleaseAddr("br0", addr(a)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Damaged(); len(d) != 3 {
		t.Errorf("%d: %q", len(d), d)
	}
	if got := all(t, s, pool("br0", "10.0.0.0/30")); len(got) != 1 || got[0] != "10.0.0.2" {
		t.Error("gave", got)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("br0\x0010.0.0.1"), []byte(`{"pool":"br0","address":"10.0.0.1","owner":"a","since":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte("br0\x00fd00::1"), []byte(`{"pool":"br0","address":"fd00::1","owner":"a","since":"2026-01-02T03:04:05Z","freed":"2026-01-02T03:04:06Z"}`))
	f.Add([]byte("br0\x00fe80::1%eth0"), []byte(`{"pool":"br0","address":"::ffff:10.0.0.1"}`))
	f.Add([]byte("\x00"), []byte(`{"pool":5}`))
	f.Add([]byte("docker/10.1.0.0/16\x0010.1.0.9"), []byte(`null`))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		r, err := parseRecord(k, v)
		p := place{r.Pool, r.Addr}
		if err == nil {
			// A sound record is written as it was read.
			text, jerr := json.Marshal(r)
			if jerr != nil {
				t.Fatal(jerr)
			}
			again, err := parseRecord(p.key(), text)
			if err != nil || again.Owner != r.Owner || again.Addr != r.Addr || !again.Since.Equal(r.Since) || !again.Freed.Equal(r.Freed) {
				t.Fatalf("%+v became %+v: %v", r, again, err)
			}
			return
		}
		if keyed, ok := parseKey(k); ok && p != keyed {
			t.Fatalf("the key says %v, not %v", keyed, p)
		}
		if r.Addr != (netip.Addr{}) && (!usable(r.Addr) || r.Pool == "") || !r.Freed.Equal(time.Time{}) || r.Owner != "" {
			t.Fatalf("%+v is not the least that is sure", r)
		}
	})
}
