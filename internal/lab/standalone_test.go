package lab_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"vswitch/internal/lab"
)

// The lab's own tests use it with both.
var (
	_ lab.T = testing.TB(nil)
	_ lab.T = (*lab.Standalone)(nil)
)

func TestStandalone(t *testing.T) {
	var order, log strings.Builder
	s := &lab.Standalone{Log: &log}
	if err := s.Try(func() error {
		s.Cleanup(func() { order.WriteString("first ") })
		s.Cleanup(func() { order.WriteString("second "); s.Fatalf("broken %d", 1) })
		s.Cleanup(func() { s.Errorf("broken %d", 2) })
		s.Logf("said %d", 3)
		return nil
	}); err != nil || s.Failed() {
		t.Errorf("nothing failed yet, and Try says %v", err)
	}

	inner := errors.New("inner")
	for name, f := range map[string]func() error{
		"Fatal of an error": func() error { s.Fatal(inner); return nil },
		"Fatalf":            func() error { s.Fatalf("outer: %w", inner); return nil },
		"Try inside Try":    func() error { return s.Try(func() error { s.Fatal(inner); return nil }) },
		"returned":          func() error { return inner },
		"inside a namespace": func() error {
			if os.Geteuid() != 0 {
				return inner
			}
			l := lab.New(s)
			defer l.Close()
			return l.Host("a").Do(func() error { s.Fatal(inner); return nil })
		},
	} {
		if err := s.Try(f); !errors.Is(err, inner) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := s.Try(func() error { s.Skip("no ", "root"); return nil }); err == nil || err.Error() != "no root" {
		t.Errorf("Skip: error %v", err)
	}
	if !s.Failed() {
		t.Error("it has failed, and does not know")
	}
	func() {
		defer func() {
			if r := recover(); r != "a bug" {
				t.Errorf("another panic became %v", r)
			}
		}()
		s.Try(func() error { panic("a bug") })
	}()

	err := s.Close()
	if err == nil || err.Error() != "broken 2\nbroken 1" {
		t.Errorf("Close: %v", err)
	}
	if order.String() != "second first " || log.String() != "said 3\n" {
		t.Errorf("cleanup in order %q, log %q", order.String(), log.String())
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestStandaloneLab fails in the middle of a lab without a test.
func TestStandaloneLab(t *testing.T) {
	if os.Geteuid() != 0 {
		lab.New(t) // skips
	}
	s := &lab.Standalone{}
	var dir string
	err := s.Try(func() error {
		l := lab.New(s)
		dir = l.Dir()
		h := l.Host("a")
		h.Container("c1")
		h.Start("sleep", "1000")
		h.MustExec("false")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "false: exit status 1") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lab's directory is left: %v", err)
	}
	for _, line := range lab.Leftovers() {
		if strings.Contains(line, "sleep 1000") {
			t.Errorf("left behind: %s", line)
		}
	}
}
