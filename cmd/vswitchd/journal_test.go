package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The journal is told each line's level, and keeps the time itself.
func TestJournal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	lines := func(format string) []string {
		t.Helper()
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		f := &flags{logLevel: "debug", logFormat: format}
		log, err := logger(f, file)
		if err != nil {
			t.Fatal(err)
		}
		log.Error("two\nlines")
		log.With("port", "p0").Warn("w")
		log.WithGroup("g").Info("i", "time", "noon")
		log.Debug("d")
		f.LogLevel.Set(slog.LevelError)
		log.Warn("not any more")
		b, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}

	t.Setenv("JOURNAL_STREAM", stream)
	want := []string{
		`<3>level=ERROR msg="two\nlines"`,
		`<4>level=WARN msg=w port=p0`,
		`<6>level=INFO msg=i g.time=noon`,
		`<7>level=DEBUG msg=d`,
	}
	if got := lines("text"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the journal is told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := lines("json"); len(got) != 4 || !strings.HasPrefix(got[1], `<4>{"time":"`) {
		t.Errorf("as JSON the journal is told %q", got)
	}

	// The variable is inherited by who sends the output elsewhere.
	for _, elsewhere := range []string{"", "1:1", stream + "0"} {
		t.Setenv("JOURNAL_STREAM", elsewhere)
		if got := lines("text"); len(got) != 4 || !strings.HasPrefix(got[0], "time=") {
			t.Errorf("with JOURNAL_STREAM=%q a file is told %q", elsewhere, got)
		}
	}
	if leadsToJournal(&bytes.Buffer{}, stream) {
		t.Error("a buffer is taken for the journal")
	}
}

// Lines of several goroutines stay whole.
func TestJournalTogether(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := slog.New(newJournal(file, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }))
	var all sync.WaitGroup
	for _, level := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo} {
		all.Go(func() { // ends after its lines
			for range 100 {
				log.Log(t.Context(), level, strings.Repeat("x", 100))
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != 300 {
		t.Fatalf("%d lines of 300", len(lines))
	}
	for _, l := range lines {
		if l[0] != '<' || !strings.HasPrefix(l[2:], ">time=") || !strings.HasSuffix(l, strings.Repeat("x", 100)) {
			t.Fatalf("line %q", l)
		}
	}
}
