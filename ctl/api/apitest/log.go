package apitest

import (
	"bytes"
	"log/slog"
	"sync"
)

// LogRecorder keeps what is logged. The zero value is ready; a nil one discards.
//
// Thread-safety: all methods are safe for concurrent use.
type LogRecorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Logger writes to r.
func (r *LogRecorder) Logger() *slog.Logger {
	if r == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(r, nil))
}

func (r *LogRecorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

// String is everything logged so far.
func (r *LogRecorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}
