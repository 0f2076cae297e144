package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"vswitch/capture"
	"vswitch/capture/filter"
	"vswitch/ctl/api"
	vswitch "vswitch/switch"
)

// maxCaptures is how many live captures there may be at a time: each has rings in
// every worker, and makes its ports' frames cost a copy.
const maxCaptures = 16

// captures counts the live captures.
//
// Thread-safety: safe for concurrent use.
type captures struct{ open atomic.Int32 }

func (c *captures) enter() error {
	if c.open.Add(1) > maxCaptures {
		c.open.Add(-1)
		return &api.Error{Status: http.StatusServiceUnavailable,
			Message: fmt.Sprintf("%d captures are running already, and there is no room for another; end one of them", maxCaptures)}
	}
	return nil
}

func (c *captures) leave() { c.open.Add(-1) }

// scope is what a capture is of: ports "" is all of the bridge, bridge "" all there are.
type scope struct{ bridge, port string }

func (s scope) String() string {
	switch {
	case s.port != "" && s.bridge == "":
		return "port " + s.port + ", which has been removed"
	case s.port != "":
		return "port " + s.port + " of bridge " + s.bridge
	case s.bridge != "":
		return "bridge " + s.bridge
	}
	return "all bridges"
}

// scopeOf finds out what is meant by a bridge's name, a port's, or one that may be
// either. A bridge's own name is that of its local port, too: name means the bridge,
// port the port.
func (d *Daemon) scopeOf(bridge, port, name string) (scope, error) {
	doc := d.current()
	if name != "" {
		switch {
		case bridge != "" || port != "":
			return scope{}, &api.Error{Status: http.StatusBadRequest, Field: "name", Value: name,
				Message: "name stands for a bridge or a port; bridge and port are not given beside it"}
		case doc.Bridge(name) != nil:
			bridge = name
		default:
			port = name
		}
	}
	if bridge != "" && doc.Bridge(bridge) == nil {
		return scope{}, unknown("bridge", bridge)
	}
	if port == "" {
		return scope{bridge: bridge}, nil
	}
	for _, b := range doc.Bridges {
		if bridge != "" && b.Name != bridge {
			continue
		}
		if b.Name == port {
			return scope{b.Name, port}, nil
		}
		for _, p := range b.Ports {
			if p.Name == port {
				return scope{b.Name, port}, nil
			}
		}
	}
	switch {
	case bridge != "":
		return scope{}, &api.Error{Status: http.StatusNotFound, Field: "port", Value: port,
			Message: fmt.Sprintf("bridge %s has no port %q", bridge, port)}
	case name != "":
		return scope{}, &api.Error{Status: http.StatusNotFound, Field: "name", Value: name,
			Message: fmt.Sprintf("there is no bridge and no port %q", name)}
	}
	return scope{}, unknown("port", port)
}

// compileFilter compiles a filter; an error says where it is wrong.
func compileFilter(expr string) (*filter.Program, error) {
	if expr == "" {
		return nil, nil
	}
	p, err := filter.Compile(expr)
	if err == nil {
		return p, nil
	}
	return nil, &api.Error{Status: http.StatusBadRequest, Field: "filter", Value: expr, Message: err.Error(), // a *filter.Error
		Allowed: "an expression as tcpdump has them, such as: host 10.0.0.1 and tcp port 80"}
}

// Capture is described at api.Service.
func (d *Daemon) Capture(_ context.Context, q api.CaptureQuery) (api.Capture, error) {
	of, err := d.scopeOf(q.Bridge, q.Port, q.Name)
	if err != nil {
		return nil, err
	}
	prog, err := compileFilter(q.Filter)
	if err != nil {
		return nil, err
	}
	if err := d.captures.enter(); err != nil {
		return nil, err
	}
	var c api.Capture
	if q.Tunnel == "outer" {
		c, err = d.captureOuter(of, prog, q)
	} else {
		c, err = d.captureInner(of, prog, q)
	}
	if err != nil {
		d.captures.leave()
		return nil, err
	}
	return c, nil
}

// captureInner captures frames as bridges see them.
func (d *Daemon) captureInner(of scope, prog *filter.Program, q api.CaptureQuery) (api.Capture, error) {
	c := vswitch.WatchConfig{
		Bridge: of.bridge, Drops: q.Drops, Filter: prog, Snap: q.Snap,
		In: q.Direction != "out", Out: q.Direction != "in",
	}
	if of.port != "" {
		c.Ports = []string{of.port}
	}
	if q.Split {
		c.Snap = 0 // only a whole super-frame can be split; its segments are cut
	}
	w, err := d.sw.Watch(c)
	if errors.Is(err, vswitch.ErrWatches) {
		return nil, &api.Error{Status: http.StatusServiceUnavailable, Message: err.Error() + "; end one of them"}
	}
	if err != nil {
		return nil, err
	}
	return &liveCapture{of: of, watch: w, show: newShow(q.Split, q.Snap), captures: &d.captures}, nil
}

// liveCapture is an api.Capture of a watch.
type liveCapture struct {
	of       scope
	watch    *vswitch.Watch
	show     *show
	captures *captures
	told     uint64 // of those missed
}

func (c *liveCapture) Of() string { return c.of.String() }

func (c *liveCapture) Read(each func(*api.CapturedFrame)) error {
	missed := c.watch.Missed()
	c.watch.Read(func(s *vswitch.Sighting) {
		c.show.sighting(s, func(f *api.CapturedFrame) bool {
			f.Packet.Dropped, c.told = missed-c.told, missed
			each(f)
			return true
		})
	})
	return nil
}

func (c *liveCapture) End() { c.watch.Close() }

func (c *liveCapture) Close() {
	c.watch.Close()
	c.show.close()
	c.captures.leave()
}

// show turns sightings into the frames of a capture.
//
// Thread-safety: none; it belongs to one reader.
type show struct {
	*wire
	frame api.CapturedFrame
	// What each bridge's ports are described with; a capture sees few bridges.
	described map[string]string
}

func newShow(split bool, snap int) *show {
	return &show{wire: newWire(split, snap), described: map[string]string{}}
}

// sighting calls each with the frames of a capture that a sighting is, until each
// returns false; they are valid during the call.
func (v *show) sighting(s *vswitch.Sighting, each func(*api.CapturedFrame) bool) {
	f := &v.frame
	*f = api.CapturedFrame{
		Bridge: s.Bridge, Port: s.Port, Direction: directionWord(s.Direction), VLAN: int(s.VLAN),
		Outputs: s.Outputs, Output: s.Output, Own: s.Own, Skipped: s.Skipped,
	}
	if s.Reason != vswitch.DropNone {
		f.Reason, f.Help = s.Reason.String(), s.Reason.Help()
	}
	comment := sightingComment(s)
	where := capture.Interface{Name: s.Port, Description: v.described[s.Bridge]}
	if where.Description == "" && s.Bridge != "" {
		where.Description = "port of bridge " + s.Bridge
		v.described[s.Bridge] = where.Description
	}
	if s.Port == "" { // it was removed, too long ago to be known by its name
		where = capture.Interface{Name: "removed", Description: "ports that have been removed"}
	}
	h := heldFrame{s.Data, s.Tag, s.Offload, s.WireLen}
	v.frames(&h, func(data []byte, wireLen int, note string) bool {
		f.Packet = capture.Packet{Time: s.Time, Interface: where, Direction: s.Direction, Data: data, OrigLen: wireLen, Comment: comment}
		if f.Note = note; note != "" {
			f.Packet.Comment += ", " + note
		}
		return each(f)
	})
}

// Recorder is described at api.Service.
func (d *Daemon) Recorder(context.Context) (api.RecorderStatus, error) {
	r := d.sw.Recorder()
	st := api.RecorderStatus{On: r.Bytes > 0, Bytes: r.Bytes, Snap: r.Snap, Rate: r.Rate, Frames: r.Frames, Drops: r.Drops, Skipped: r.Skipped}
	if !r.Oldest.IsZero() {
		st.Oldest = &r.Oldest
	}
	if !r.OldestDrop.IsZero() {
		st.OldestDrop = &r.OldestDrop
	}
	return st, nil
}

// recorded reports whether the flight recorder holds a frame of a port.
func (d *Daemon) recorded(port string) (found bool) {
	d.sw.Recorded(time.Now().Add(-api.MaxLast), func(s *vswitch.Sighting) bool {
		found = s.Port == port
		return !found
	})
	return found
}

// RecorderDump is described at api.Service.
func (d *Daemon) RecorderDump(ctx context.Context, q api.DumpQuery, begin func(string) error, each func(*api.CapturedFrame) error) error {
	of, err := d.scopeOf(q.Bridge, q.Port, q.Name)
	if err != nil {
		// What is gone is known by its name as long as its frames are.
		port := q.Port + q.Name
		if q.Bridge != "" || port == "" || !d.recorded(port) {
			return err
		}
		of = scope{port: port}
	}
	prog, err := compileFilter(q.Filter)
	if err != nil {
		return err
	}
	if d.sw.Recorder().Bytes == 0 {
		return &api.Error{Status: http.StatusConflict,
			Message: "the flight recorder is off: vswitchd was started with --recorder 0; without that, or with another size, it records"}
	}
	if err := begin(of.String()); err != nil {
		return err
	}
	var since time.Time
	if q.Last > 0 {
		since = time.Now().Add(-q.Last)
	} else {
		since = time.Now().Add(-api.MaxLast)
	}
	v := newShow(q.Split, 0)
	defer v.close()
	d.sw.Recorded(since, func(s *vswitch.Sighting) bool {
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
			return false
		case of.bridge != "" && s.Bridge != of.bridge, of.port != "" && s.Port != of.port,
			q.Drops && s.Reason == vswitch.DropNone, !prog.Match(s.Data, s.Tag, s.WireLen):
			return true
		}
		v.sighting(s, func(f *api.CapturedFrame) bool {
			err = each(f)
			return err == nil
		})
		return err == nil
	})
	return err
}
