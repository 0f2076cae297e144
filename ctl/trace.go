package ctl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"vswitch/capture/reader"
	"vswitch/capture/summary"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// Trace is described at api.Service.
func (d *Daemon) Trace(_ context.Context, r api.TraceRequest) (api.Trace, error) {
	if err := d.inPort(r.Bridge, r.InPort); err != nil {
		return api.Trace{}, err
	}
	data, err := reader.Hex(r.Frame)
	if err != nil {
		return api.Trace{}, &api.Error{Status: http.StatusBadRequest, Field: "frame", Value: r.Frame[:min(len(r.Frame), 64)], Allowed: "an even number of hexadecimal digits", Message: "frame: " + err.Error()}
	}
	var o frame.Offload
	if r.Offload != nil {
		o = frame.Offload(*r.Offload)
	}
	t, err := d.sw.Trace(r.InPort, data, o)
	if err != nil {
		return api.Trace{}, portGone(err, r.InPort)
	}
	return NewTrace(t, false), nil
}

// inPort refuses a port that is not there, or not of the bridge that was named.
func (d *Daemon) inPort(bridge, port string) error {
	if bridge != "" {
		if _, err := d.chosen(bridge); err != nil {
			return err
		}
	}
	if d.hasPort(bridge, port) {
		return nil
	}
	e := unknown("port", port)
	if doc := d.current(); bridge != "" {
		for i := range doc.Bridges {
			if b := &doc.Bridges[i]; b.Name == port || b.Port(port) != nil {
				e.Message = fmt.Sprintf("port %q is of bridge %s, not of %s", port, b.Name, bridge)
			}
		}
	}
	return e
}

// portGone tells of a port that the document has and the switch has no more, or not yet.
func portGone(err error, port string) error {
	if errors.Is(err, vswitch.ErrNotExist) {
		return unknown("port", port)
	}
	return err
}

// TraceLive is described at api.Service.
func (d *Daemon) TraceLive(ctx context.Context, q api.TraceQuery, begin func() error, each func(*api.Trace) error) (api.TraceEnd, error) {
	var end api.TraceEnd
	if q.Port != "" {
		if err := d.inPort(q.Bridge, q.Port); err != nil {
			return end, err
		}
	} else if _, err := d.chosen(q.Bridge); err != nil {
		return end, err
	}
	f, err := compileFilter(q.Filter)
	if err != nil {
		return end, err
	}
	if err := begin(); err != nil {
		return end, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	end.Missed, err = d.sw.TraceLive(ctx, q.Bridge, q.Port, f, q.Count, func(t *vswitch.Traced) {
		if failed != nil {
			return
		}
		x := NewTrace(t, true)
		if failed = each(&x); failed != nil {
			cancel()
			return
		}
		end.Traced++
	})
	if errors.Is(err, vswitch.ErrTracing) {
		err = &api.Error{Status: http.StatusConflict, Message: "trace: " + err.Error()}
	}
	return end, errors.Join(err, failed)
}

// NewTrace turns what the switch tells of a frame's way into what the API does. live
// says that the frame was a real one.
func NewTrace(t *vswitch.Traced, live bool) api.Trace {
	x := api.Trace{
		Time: t.Time, Bridge: t.Bridge, InPort: t.Port, Live: live, Frame: traceFrame(&t.Sighting),
		Steps: []api.TraceStep{}, Out: []api.TraceFrame{}, Drops: []api.TraceFrame{},
	}
	for _, s := range t.Steps {
		step := api.TraceStep{Depth: s.Depth, Bridge: s.Bridge, Port: s.Port, Stage: s.Stage, Text: s.Text}
		if s.Reason != vswitch.DropNone {
			step.Reason = s.Reason.String()
		}
		x.Steps = append(x.Steps, step)
	}
	for i := range t.Left {
		x.Out = append(x.Out, traceFrame(&t.Left[i]))
	}
	for i := range t.Drops {
		x.Drops = append(x.Drops, traceFrame(&t.Drops[i]))
	}
	x.Verdict = verdict(&x)
	return x
}

func traceFrame(s *vswitch.Sighting) api.TraceFrame {
	f := api.TraceFrame{
		Bridge: s.Bridge, Port: s.Port, VLAN: int(s.VLAN), Length: s.WireLen, Own: s.Own,
		Summary: summary.Of(s.Data, s.WireLen), Data: hex.EncodeToString(s.Data[:min(len(s.Data), api.MaxTraceData)]),
	}
	if s.Tag.Present() {
		f.Tag = &api.VLANTag{VID: int(s.Tag.VID()), PCP: int(s.Tag.TCI >> 13)}
		if s.Tag.TPID != frame.TPID8021Q {
			f.Tag.TPID = fmt.Sprintf("%#04x", s.Tag.TPID)
		}
	}
	if s.Offload.Super() {
		f.GSOSize = int(s.Offload.GSOSize)
	}
	if s.Reason != vswitch.DropNone {
		f.Reason, f.Help = s.Reason.String(), s.Reason.Help()
	}
	return f
}

// maxNamed is how many ports a verdict names.
const maxNamed = 5

// verdict says what becomes of a frame in a line.
func verdict(t *api.Trace) string {
	left, dropped := "would leave", "would be dropped"
	if t.Live {
		left, dropped = "left", "dropped"
	}
	var says []string
	if ports := leaving(t.Out, false); len(ports) > 0 {
		says = append(says, left+" by "+listed(ports))
	}
	if ports := leaving(t.Out, true); len(ports) > 0 {
		says = append(says, "its sender "+map[bool]string{true: "was", false: "would be"}[t.Live]+" told by ICMP, by "+listed(ports))
	}
	if n := len(t.Drops); n > 0 {
		d := &t.Drops[0]
		way := " at " + d.Port
		if n > maxNamed {
			way = fmt.Sprintf(" at %s and %d more times", d.Port, n-1)
		}
		says = append(says, dropped+way+": "+d.Reason+": "+d.Help)
		for i := 1; i < n && n <= maxNamed; i++ {
			says = append(says, dropped+" at "+t.Drops[i].Port+": "+t.Drops[i].Reason)
		}
	}
	if len(says) == 0 {
		for _, s := range t.Steps {
			if s.Stage == "transmit" {
				return "waits for " + s.Port + " to take it"
			}
		}
		return "goes nowhere"
	}
	return strings.Join(says, "; ")
}

// leaving names the ports that frames leave by, each once, with the tag.
func leaving(out []api.TraceFrame, own bool) (ports []string) {
	count := map[string]int{}
	for i := range out {
		f := &out[i]
		if f.Own != own {
			continue
		}
		name := f.Port + " untagged"
		if f.Tag != nil {
			name = fmt.Sprintf("%s tagged %d", f.Port, f.Tag.VID)
		}
		if count[name]++; count[name] == 1 {
			ports = append(ports, name)
		}
	}
	for i, name := range ports {
		if n := count[name]; n > 1 {
			ports[i] = fmt.Sprintf("%s in %d frames", name, n)
		}
	}
	return ports
}

// listed is a list of ports in words.
func listed(ports []string) string {
	if n := len(ports); n > maxNamed {
		return fmt.Sprintf("%s and %d more ports", strings.Join(ports[:maxNamed], ", "), n-maxNamed)
	}
	return strings.Join(ports, ", ")
}
