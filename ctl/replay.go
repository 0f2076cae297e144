package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"vswitch/capture"
	"vswitch/capture/reader"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// replays are the ports into which a capture is replayed: one at a time each.
//
// Thread-safety: safe for concurrent use. The zero value is ready.
type replays struct {
	mu    sync.Mutex
	ports map[string]bool
}

func (r *replays) enter(port string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[port] {
		return false
	}
	if r.ports == nil {
		r.ports = map[string]bool{}
	}
	r.ports[port] = true
	return true
}

func (r *replays) leave(port string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ports, port)
}

// Replay is described at api.Service.
func (d *Daemon) Replay(ctx context.Context, q api.ReplayQuery, file io.Reader, tell func(api.ReplayResult)) (api.ReplayResult, error) {
	if err := d.inPort(q.Bridge, q.Port); err != nil {
		return api.ReplayResult{}, err
	}
	if !d.replays.enter(q.Port) {
		return api.ReplayResult{}, &api.Error{Status: http.StatusConflict, Field: "port", Value: q.Port,
			Message: fmt.Sprintf("a capture is replayed into port %s already; there is one at a time", q.Port)}
	}
	defer d.replays.leave(q.Port)
	r := &replay{
		port: q.Port, speed: q.Speed, mtu: d.portMTU(q.Port), refused: map[string]int{},
		inject: func(frames []vswitch.Injected) error { return portGone(d.sw.Inject(q.Port, frames), q.Port) },
	}
	return r.run(ctx, file, tell)
}

// portMTU is the largest IP packet that one frame of a port's can have, not a
// super-frame.
func (d *Daemon) portMTU(name string) int {
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := r.ports[name]; {
	case p != nil && p.tunnel != nil && p.tunnel.mtu > 0:
		return p.tunnel.mtu
	case p != nil && p.link.MTU > 0:
		return p.link.MTU
	}
	return kernelMTU
}

// replay is one replay under way.
//
// Thread-safety: run is for one goroutine; what it counts is guarded by mu.
type replay struct {
	port   string
	speed  float64 // times the capture's; api.SpeedMax: at once
	mtu    int     // of the port: what is longer was a super-frame
	inject func([]vswitch.Injected) error

	batch []vswitch.Injected
	size  int // bytes in batch

	mu      sync.Mutex
	result  api.ReplayResult
	began   time.Time
	refused map[string]int // index in result.Refused
}

const (
	// maxReplayBytes bounds what waits to be injected together.
	maxReplayBytes = 1 << 20
	// together is how close frames must be for them to be injected in one call: less
	// than a timer can tell apart.
	together = 50 * time.Microsecond
	// maxPause bounds the time between two frames: a file may claim centuries.
	maxPause = time.Hour
	// tellEvery is how often it is told how far a replay is.
	tellEvery = time.Second
)

// run reads the file to its end.
func (r *replay) run(ctx context.Context, file io.Reader, tell func(api.ReplayResult)) (api.ReplayResult, error) {
	r.began = time.Now()
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() { // ends with run
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				tell(r.soFar())
			}
		}
	})
	err := r.read(ctx, file)
	close(ended)
	telling.Wait()
	return r.soFar(), err
}

// soFar returns what was done, in memory of its own.
func (r *replay) soFar() api.ReplayResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.result
	x.Refused = append([]api.ReplayRefusal(nil), r.result.Refused...)
	x.Seconds = time.Since(r.began).Seconds()
	return x
}

func (r *replay) read(ctx context.Context, file io.Reader) error {
	c, err := reader.New(file)
	if err != nil {
		return unreadable(ctx, err)
	}
	clock := pace{speed: r.speed}
	for {
		if c.Waiting() {
			if err := r.flush(); err != nil {
				return err
			}
		}
		p, err := c.Next()
		if err == io.EOF {
			return r.flush()
		}
		if err != nil {
			// What came before goes in; a file that ends too soon, too.
			return errors.Join(r.flush(), unreadable(ctx, err))
		}
		if p.Direction == capture.Outbound {
			r.mu.Lock()
			r.result.Skipped++
			r.mu.Unlock()
			continue
		}
		data, cut, err := p.Frame()
		if err != nil {
			r.refuse(p.Number, err)
			continue
		}
		if wait := clock.wait(p.Time, time.Now()); wait > together {
			if err := r.flush(); err != nil {
				return err
			}
			if err := rest(ctx, wait); err != nil {
				return err
			}
		}
		if err := r.add(data, cut); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return errInterrupted
		}
	}
}

// unreadable is what is wrong with the file: it is the client's, or the client left.
func unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return &api.Error{Status: http.StatusBadRequest, Message: "replay: " + err.Error()}
}

var errInterrupted = &api.Error{Status: http.StatusServiceUnavailable, Message: "replay: interrupted: the client left, or the daemon ends"}

// rest waits, or until ctx ends.
func rest(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errInterrupted
	}
}

// add puts a frame with those that go in together.
func (r *replay) add(data []byte, cut bool) error {
	o, _ := reader.Restore(data, r.mtu)
	r.batch = append(r.batch, vswitch.Injected{Data: data, Offload: o})
	r.size += len(data)
	if cut {
		r.mu.Lock()
		r.result.Cut++
		r.mu.Unlock()
	}
	if len(r.batch) == frame.MaxBatch || r.size >= maxReplayBytes {
		return r.flush()
	}
	return nil
}

// flush puts the gathered frames into the switch.
func (r *replay) flush() error {
	if len(r.batch) == 0 {
		return nil
	}
	if err := r.inject(r.batch); err != nil {
		return err
	}
	r.mu.Lock()
	r.result.Frames += uint64(len(r.batch))
	r.result.Bytes += uint64(r.size)
	r.mu.Unlock()
	clear(r.batch)
	r.batch, r.size = r.batch[:0], 0
	return nil
}

// refuse counts a packet that is no frame.
func (r *replay) refuse(number int, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.refused[why.Error()]
	if !ok {
		i = len(r.result.Refused)
		r.refused[why.Error()] = i
		r.result.Refused = append(r.result.Refused, api.ReplayRefusal{Reason: why.Error(), First: number})
	}
	r.result.Refused[i].Packets++
}

// pace turns the times of a capture into times to wait. A frame that is late is made up
// for; one whose time is before the last one's goes at once, and the clock with it.
type pace struct {
	speed float64
	last  time.Time // in the capture
	due   time.Time // of the last frame, on our clock; zero: there was none
}

// wait returns how long a frame with the time at is to wait, at the time now.
func (p *pace) wait(at, now time.Time) time.Duration {
	if p.speed == api.SpeedMax || at.IsZero() {
		return 0
	}
	if p.due.IsZero() {
		p.last, p.due = at, now
		return 0
	}
	gap := min(max(at.Sub(p.last), 0), maxPause)
	p.last = at
	p.due = p.due.Add(time.Duration(min(float64(gap)/p.speed, float64(maxPause))))
	return max(p.due.Sub(now), 0)
}
