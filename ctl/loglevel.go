package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/api"
)

// logLevel is the level below which nothing is logged, which can be changed while the
// daemon runs. It is state, and no part of the desired document: the next start has
// what vswitchd's --log-level says.
//
// Thread-safety: safe for concurrent use.
type logLevel struct {
	log   *slog.Logger
	level *slog.LevelVar

	mu     sync.Mutex
	change uint64      // number of the last change that goes back by itself
	timer  *time.Timer // its; nil: none waits
	until  time.Time
	then   slog.Level // what it goes back to
}

// newLogLevel takes the level that log's handler looks at; nil: it looks at none that
// can be changed.
func newLogLevel(log *slog.Logger, level *slog.LevelVar) *logLevel {
	return &logLevel{log: log, level: level}
}

// levelName is how the API and vswitchctl spell a level.
func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

func (l *logLevel) statusLocked() api.LogStatus {
	st := api.LogStatus{Level: levelName(l.level.Level())}
	if l.timer != nil {
		until := l.until
		st.Until, st.Then = &until, levelName(l.then)
	}
	return st
}

// set changes the level, for a while if span is above zero. What it goes back to is
// the level that was set to stay.
func (l *logLevel) set(level slog.Level, span time.Duration) api.LogStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.then = l.level.Level()
	} else {
		l.timer.Stop()
		l.timer = nil
	}
	why := "asked for"
	if span > 0 {
		why = fmt.Sprintf("asked for, for %s", span)
		l.until = time.Now().Add(span)
		l.change++
		n := l.change
		l.timer = time.AfterFunc(span, func() { l.back(n) })
	}
	l.changeLocked(level, why)
	return l.statusLocked()
}

// back ends a change that was for a while, unless another came after it.
func (l *logLevel) back(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil && l.change == n {
		l.timer = nil
		l.changeLocked(l.then, "its time is over")
	}
}

// changeLocked sets the level and says so, under whichever of both levels shows it.
func (l *logLevel) changeLocked(to slog.Level, why string) {
	from := l.level.Level()
	say := func() {
		l.log.Log(context.Background(), max(slog.LevelInfo, min(from, to)), "log level changed", "from", levelName(from), "to", levelName(to), "why", why)
	}
	if from <= to {
		say()
	}
	l.level.Set(to)
	if from > to {
		say()
	}
}

// close forgets a change that would go back.
func (l *logLevel) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// LogLevel is described at api.Service.
func (d *Daemon) LogLevel(context.Context) (api.LogStatus, error) {
	if d.logLevel.level == nil {
		return api.LogStatus{}, errFixedLevel()
	}
	d.logLevel.mu.Lock()
	defer d.logLevel.mu.Unlock()
	return d.logLevel.statusLocked(), nil
}

// SetLogLevel is described at api.Service.
func (d *Daemon) SetLogLevel(_ context.Context, c api.LogChange) (api.LogStatus, error) {
	if d.logLevel.level == nil {
		return api.LogStatus{}, errFixedLevel()
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil || !slices.Contains(api.LogLevels, c.Level) {
		return api.LogStatus{}, &api.Error{Status: 400, Field: "level", Value: c.Level, Allowed: strings.Join(api.LogLevels, ", "),
			Message: fmt.Sprintf("level: %q is not one of %s", c.Level, strings.Join(api.LogLevels, ", "))}
	}
	return d.logLevel.set(level, min(max(c.For, 0), api.MaxLogFor)), nil
}

func errFixedLevel() error {
	return &api.Error{Status: 409, Message: "the level of this daemon's log is fixed"}
}
