package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/api"
)

// Events is what a daemon tells from a moment on.
//
// Thread-safety: safe for concurrent use.
type Events struct {
	lab *Lab
	mu  sync.Mutex
	all []api.Event
}

// Events listens to a daemon's events, of some kinds or of all. None is missed after
// it returned. It ends with the lab, or the daemon.
func (d *Daemon) Events(kinds ...string) *Events {
	l := d.Host.lab
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://vswitch/v1/events?kind="+strings.Join(kinds, ","), nil)
	var answer *http.Response
	if err == nil {
		answer, err = client.Do(r) // its header comes once the daemon tells us of events
	}
	if err != nil {
		cancel()
		l.t.Fatalf("lab: listen to events: %v", err)
	}
	e := &Events{lab: l}
	var done sync.WaitGroup
	l.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() { // ends with the lab, or the daemon
		defer answer.Body.Close()
		for lines := json.NewDecoder(answer.Body); ; {
			var ev api.Event
			if lines.Decode(&ev) != nil {
				return
			}
			e.mu.Lock()
			e.all = append(e.all, ev)
			e.mu.Unlock()
		}
	})
	return e
}

// All returns all events so far.
func (e *Events) All() []api.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// Of returns the events of a kind about a port so far; about any for "".
func (e *Events) Of(kind, port string) (some []api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Kind == kind && (port == "" || ev.Port == port) {
			some = append(some, ev)
		}
	}
	return some
}

// Wait waits for the first event of a kind about a port.
func (e *Events) Wait(limit time.Duration, kind, port string) api.Event {
	e.lab.t.Helper()
	Eventually(e.lab.t, limit, func() error {
		if len(e.Of(kind, port)) > 0 {
			return nil
		}
		return fmt.Errorf("no event %s of %s among %+v", kind, port, e.All())
	})
	return e.Of(kind, port)[0]
}
