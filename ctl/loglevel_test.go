package ctl

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogLevelGoesBack: to the level that was set to stay, whatever came between.
func TestLogLevelGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		level := new(slog.LevelVar)
		l := newLogLevel(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})), level)
		defer l.close()
		is := func(want slog.Level, then string) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			if st := l.statusLocked(); level.Level() != want || st.Then != then || (st.Until != nil) != (then != "") {
				t.Errorf("%v, %+v; want %v, then %q", level, st, want, then)
			}
		}
		l.set(slog.LevelDebug, 10*time.Minute)
		is(slog.LevelDebug, "info")
		time.Sleep(9 * time.Minute)
		l.set(slog.LevelWarn, 10*time.Minute) // the first one is forgotten
		is(slog.LevelWarn, "info")
		time.Sleep(9 * time.Minute)
		is(slog.LevelWarn, "info")
		time.Sleep(2 * time.Minute)
		is(slog.LevelInfo, "")
		l.set(slog.LevelDebug, time.Minute)
		l.set(slog.LevelError, 0) // to stay
		time.Sleep(time.Hour)
		is(slog.LevelError, "")
		l.set(slog.LevelInfo, time.Minute)
		time.Sleep(time.Hour)
		is(slog.LevelError, "")
		if n := strings.Count(out.String(), "log level changed"); n != 7 {
			t.Errorf("%d changes were logged:\n%s", n, out.String())
		}
	})
}
