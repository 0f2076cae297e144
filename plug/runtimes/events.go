package runtimes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vswitch/ctl/config"
)

// Bounds of a stream of events.
const (
	maxEvent     = 1 << 20 // bytes of one; it repeats the container's labels
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 500 * time.Millisecond
	steady       = 5 * time.Second // a stream that lasted so long was a good one
)

// listen tells of each container of the engine that starts, dies, goes or is renamed, and
// the zero ref whenever it begins to hear, until ctx ends.
func (e *engine) listen(ctx context.Context, log *slog.Logger, tell func(change)) {
	backoff, said := firstBackoff, false
	for {
		began := time.Now()
		err := e.stream(ctx, func() {
			if said {
				log.Info("a container runtime answers again", "runtime", e.kind, "socket", e.socket)
				said = false
			}
		}, tell)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			backoff = firstBackoff
		} else if backoff == lastBackoff && !said {
			log.Warn("a container runtime cannot be listened to; its containers stay as they are", "runtime", e.kind, "socket", e.socket, "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// eventsPath asks for what is told, in Docker's words and Podman's (remove, died), since a
// moment.
func eventsPath(since time.Time) string {
	const filters = `{"type":["container"],"event":["start","die","died","destroy","remove","rename"]}`
	return fmt.Sprintf("/events?filters=%s&since=%d.%09d", url.QueryEscape(filters), since.Unix(), since.Nanosecond())
}

// stream listens once, until the stream ends. It always ends with an error.
func (e *engine) stream(ctx context.Context, heard func(), tell func(change)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Docker answers a moment before it begins to listen: what happens in between is
	// asked for as the past.
	path := eventsPath(time.Now())
	late := time.AfterFunc(e.timeout, cancel)
	resp, err := e.do(ctx, path)
	if !late.Stop() && err == nil {
		resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = context.DeadlineExceeded
		}
		return e.silent(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxStat))
		return fmt.Errorf("%s answers %d: %s", e.kind, resp.StatusCode, reason(body))
	}
	heard()
	tell(change{})
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	for lines.Scan() {
		for _, c := range e.event(lines.Bytes()) {
			tell(c)
		}
	}
	if err := lines.Err(); err != nil {
		return e.silent(err)
	}
	return fmt.Errorf("%s ended the stream of events", e.kind)
}

// event reads whom one line of the stream is about: nobody, when it is not understood and
// no harm is done; everybody, when somebody is meant that is not named.
func (e *engine) event(line []byte) []change {
	var in struct {
		Type   string
		Action string
		Actor  struct {
			ID         string
			Attributes map[string]string
		}
	}
	if json.Unmarshal(line, &in) != nil {
		return nil
	}
	switch in.Action {
	case "start", "die", "died", "destroy", "remove", "rename":
	default:
		return nil
	}
	if in.Type != "container" {
		return nil
	}
	all := []change{{}}
	name := in.Actor.Attributes["name"]
	if !validName(name) {
		return all
	}
	changes := []change{{config.ContainerRef{Kind: e.kind, Name: name}, in.Actor.ID}}
	if in.Action == "rename" {
		old := strings.TrimPrefix(in.Actor.Attributes["oldName"], "/")
		if !validName(old) { // Podman does not say
			return all
		}
		changes = append(changes, change{config.ContainerRef{Kind: e.kind, Name: old}, ""})
	}
	return changes
}
