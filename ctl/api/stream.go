package api

import (
	"net/http"
	"slices"
	"time"
)

// EventKinds are the kinds an Event can have.
var EventKinds = []string{
	"port-up", "port-down", "port-waiting", "port-error", "port-removed",
	"mac-learned", "mac-moved", "mac-aged", "mac-evicted", "mac-flapping", "address-conflict",
	"bfd-up", "bfd-down", "mtu-changed",
	"config", "confirm", "drops", "mirror-error", "mirror-up", "resync", "store", "lost",
}

// EventFilter selects events; empty fields select all.
type EventFilter struct {
	Kinds  []string
	Bridge string
}

// match always lets "lost" through: a reader must know that he missed something.
func (f EventFilter) match(e Event) bool {
	if e.Kind == "lost" {
		return true
	}
	if f.Bridge != "" && e.Bridge != f.Bridge {
		return false
	}
	return len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind)
}

// flushBytes bounds how much of a burst of events is written at once.
const flushBytes = 64 << 10

// events streams JSON lines until the client goes away, stops reading, or the
// daemon ends.
func (s *Server) events(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	filter, err := q.events()
	if err != nil {
		return nil, err
	}
	if !s.streams.enter() {
		return nil, busy("event streams", s.limits.Streams)
	}
	defer s.streams.leave()
	events, cancel := s.svc.Subscribe()
	defer cancel()

	// The server's timeouts are for whole requests; a stream has one for each
	// write, so that a reader who does not read is cut off.
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	write := func(b []byte) error {
		if err := rc.SetWriteDeadline(time.Now().Add(s.limits.WriteTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		if err := rc.Flush(); err != nil {
			return err
		}
		return rc.SetWriteDeadline(time.Time{})
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if err := write(nil); err != nil { // the header: the client knows that it listens
		return nil, nil
	}

	var buf []byte
	for {
		select {
		case <-r.Context().Done():
			return nil, nil
		case <-s.done:
			return nil, nil
		case e, ok := <-events:
			// One write for a burst: what is there already goes out together.
			buf = buf[:0]
			for more := true; more; {
				if ok && filter.match(e) {
					buf = s.appendEvent(buf, e)
				}
				more = false
				if ok && len(buf) < flushBytes {
					select {
					case e, ok = <-events:
						more = true
					default:
					}
				}
			}
			if len(buf) > 0 && write(buf) != nil {
				return nil, nil
			}
			if !ok {
				return nil, nil
			}
		}
	}
}

func (s *Server) appendEvent(buf []byte, e Event) []byte {
	b, err := encode(e)
	if err != nil { // a Detail that JSON cannot hold
		s.log.Error("event cannot be encoded", "kind", e.Kind, "err", err)
		return buf
	}
	return append(buf, b...)
}
