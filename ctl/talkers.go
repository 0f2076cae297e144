package ctl

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"vswitch/capture"
	"vswitch/ctl/api"
	vswitch "vswitch/switch"
)

// Bounds of what one question after talkers looks at.
const (
	maxTalked  = 1 << 20 // sightings
	maxTalkers = 1 << 16 // MAC addresses, and flows, that are told apart
)

// flow is what is counted together: a 5-tuple in a VLAN of a bridge, or what two MAC
// addresses say to each other that is not IP.
type flow struct {
	bridge           string
	vlan             uint16
	etherType        uint16
	proto            uint8
	ipSrc, ipDst     netip.Addr // invalid: src and dst count
	src, dst         [6]byte
	srcPort, dstPort uint16
}

// talk is what a MAC address, or a flow, sent.
type talk struct {
	frames, bytes float64
	port, output  string // the last
}

func (t *talk) add(x *vswitch.Sighting, output string) {
	weight := float64(1 + x.Skipped)
	t.frames += weight
	t.bytes += weight * float64(x.WireLen)
	t.port, t.output = x.Port, output
}

// Talkers is described at api.Service. A frame that was dropped as it came in was sent
// all the same: it counts.
func (d *Daemon) Talkers(ctx context.Context, q api.TalkersQuery) (api.Talkers, error) {
	if _, err := d.chosen(q.Bridge); err != nil {
		return api.Talkers{}, err
	}
	window, n := cmp.Or(q.Window, api.DefaultTalkersWindow), cmp.Or(q.N, api.DefaultTalkers)
	out := api.Talkers{MACs: []api.MACTalker{}, Flows: []api.FlowTalker{}}
	st := d.sw.Recorder()
	if st.Bytes == 0 {
		out.Note = "the flight recorder is off: `vswitchd --recorder` turns it on"
		return out, nil
	}
	out.Recorder = true
	now := time.Now()
	from := now.Add(-window)
	// A recorder that has not been filled once holds all there was; one that has may
	// not reach back so far.
	if slots := uint64(st.Bytes) / 4 * 3 / uint64(st.Snap); st.Frames > slots/2 && st.Oldest.After(from) {
		from = st.Oldest
	}
	macs, flows := map[place]*talk{}, map[flow]*talk{}
	full := false
	d.sw.Recorded(from, func(x *vswitch.Sighting) bool {
		if x.Direction != capture.Inbound || x.Own || q.Bridge != "" && x.Bridge != q.Bridge {
			return true
		}
		if out.Seen++; out.Seen == maxTalked || out.Seen%4096 == 0 && ctx.Err() != nil {
			full = true
			return false
		}
		out.Frames += 1 + x.Skipped
		f, mac, ok := flowOf(x)
		if !ok {
			return true
		}
		output := x.Output
		if x.Outputs != 1 {
			output = ""
		}
		full = !counted(macs, place{f.bridge, f.vlan, mac}, x, output) || full
		full = !counted(flows, f, x, output) || full
		return true
	})
	if full {
		out.Note = "more was sent than is told apart: the busiest of what was"
	}
	out.Window = now.Sub(from).Seconds()
	if out.Window <= 0 {
		return out, nil
	}
	out.MACs, out.Flows = d.macTalkers(macs, n, out.Window), flowTalkers(flows, n, out.Window)
	return out, nil
}

// counted counts a frame, unless there are too many to tell apart.
func counted[K comparable](all map[K]*talk, k K, x *vswitch.Sighting, output string) bool {
	t := all[k]
	if t == nil {
		if len(all) == maxTalkers {
			return false
		}
		t = &talk{}
		all[k] = t
	}
	t.add(x, output)
	return true
}

// flowOf returns the flow a frame belongs to, and who sent it.
func flowOf(x *vswitch.Sighting) (f flow, mac [6]byte, ok bool) {
	n, ok := names(x.Data)
	if !ok {
		return f, mac, false
	}
	f = flow{bridge: x.Bridge, vlan: x.VLAN, etherType: n.etherType}
	if n.ipSrc.IsValid() && n.proto != 0 {
		f.proto, f.ipSrc, f.ipDst, f.srcPort, f.dstPort = n.proto, n.ipSrc, n.ipDst, n.srcPort, n.dstPort
	} else {
		f.src, f.dst = n.src, n.dst
	}
	return f, n.src, true
}

// busiest returns the n keys that sent most bytes; a tie goes to more frames.
func busiest[K comparable](all map[K]*talk, n int) []K {
	keys := make([]K, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b K) int {
		return cmp.Or(cmp.Compare(all[b].bytes, all[a].bytes), cmp.Compare(all[b].frames, all[a].frames))
	})
	return keys[:min(n, len(keys))]
}

func (d *Daemon) macTalkers(all map[place]*talk, n int, seconds float64) []api.MACTalker {
	keys := busiest(all, n)
	ips := map[place]netip.Addr{}
	for _, k := range keys {
		ips[k] = netip.Addr{}
	}
	d.seen.neighbors.addresses(ips)
	out := []api.MACTalker{}
	for _, k := range keys {
		t := all[k]
		m := api.MACTalker{
			Bridge: k.bridge, VLAN: int(k.vlan), MAC: macText(k.mac), Port: t.port, Frames: t.frames / seconds, Bits: 8 * t.bytes / seconds,
		}
		if ip := ips[k]; ip.IsValid() {
			m.IP = ip.String()
		}
		out = append(out, m)
	}
	return out
}

func flowTalkers(all map[flow]*talk, n int, seconds float64) []api.FlowTalker {
	out := []api.FlowTalker{}
	for _, k := range busiest(all, n) {
		t := all[k]
		x := api.FlowTalker{
			Bridge: k.bridge, VLAN: int(k.vlan), Port: t.port, Output: t.output, Proto: (&named{etherType: k.etherType, proto: k.proto, ipSrc: k.ipSrc}).protocol(),
			Src: macText(k.src), Dst: macText(k.dst), SrcPort: int(k.srcPort), DstPort: int(k.dstPort),
			Frames: t.frames / seconds, Bits: 8 * t.bytes / seconds,
		}
		if k.ipSrc.IsValid() {
			x.Src, x.Dst = k.ipSrc.String(), k.ipDst.String()
		}
		out = append(out, x)
	}
	return out
}
