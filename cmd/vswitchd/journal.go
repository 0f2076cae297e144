package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// journal is a log handler that begins each line with the record's level, as sd-daemon(3)
// has it: without "<4>" the journal takes a warning for information, and
// `journalctl -p warning` does not show it.
//
// Each priority has a handler of its own that writes with its prefix. A handler writes a
// record by one call, and a stream keeps calls apart, so lines stay whole.
//
// Thread-safety: safe for concurrent use.
type journal [4]slog.Handler // by priority; see priorityOf

// priorities are those of syslog(3): error, warning, info, debug.
var priorities = [4]string{"<3>", "<4>", "<6>", "<7>"}

// priorityOf returns the index in priorities of a record's level.
func priorityOf(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 0
	case l >= slog.LevelWarn:
		return 1
	case l >= slog.LevelInfo:
		return 2
	}
	return 3
}

// newJournal makes a journal that writes to w; to makes a handler that writes to what it is given.
func newJournal(w io.Writer, to func(io.Writer) slog.Handler) journal {
	return journal{}.each(func(i int, _ slog.Handler) slog.Handler { return to(prefixed{w, priorities[i]}) })
}

func (j journal) each(f func(int, slog.Handler) slog.Handler) journal {
	for i, h := range j {
		j[i] = f(i, h)
	}
	return j
}

func (j journal) Enabled(ctx context.Context, l slog.Level) bool { return j[0].Enabled(ctx, l) }

func (j journal) Handle(ctx context.Context, r slog.Record) error {
	return j[priorityOf(r.Level)].Handle(ctx, r)
}

func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.each(func(_ int, h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (j journal) WithGroup(name string) slog.Handler {
	return j.each(func(_ int, h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

// prefixed writes by one call what it is given, behind its prefix.
type prefixed struct {
	io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(append([]byte(p.prefix), b...))
	return max(0, n-len(p.prefix)), err
}

// leadsToJournal reports whether w is the stream that systemd says leads to its journal:
// $JOURNAL_STREAM is "DEVICE:INODE" (systemd.exec(5)). Who runs the daemon with its errors
// sent elsewhere has the variable, too.
func leadsToJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// withoutTime leaves out a record's own time, which the journal has at each line.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
