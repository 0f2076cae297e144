package ctl

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug"
	vswitch "vswitch/switch"
)

// The questions that Service answers: what is true now.

// chosen returns the bridges of the document that are asked for: one by name, or
// all for "".
func (d *Daemon) chosen(bridge string) ([]config.Bridge, error) {
	doc := d.current()
	if bridge == "" {
		return doc.Bridges, nil
	}
	if b := doc.Bridge(bridge); b != nil {
		return []config.Bridge{*b}, nil
	}
	return nil, unknown("bridge", bridge)
}

func unknown(what, name string) *api.Error {
	return &api.Error{Status: 404, Message: fmt.Sprintf("%s %q does not exist", what, name), Field: what, Value: name}
}

// Status is described at api.Service.
func (d *Daemon) Status(_ context.Context, bridge string) (api.Status, error) {
	bridges, err := d.chosen(bridge)
	if err != nil {
		return api.Status{}, err
	}
	version, _ := d.store.View()
	st := api.Status{ConfigVersion: version, Confirm: d.pending(), Warnings: d.warnings(), Bridges: []api.BridgeStatus{}}
	if st.Confirm != nil && d.wentBack.Load() == st.Confirm.Version {
		st.Confirm = nil // it is too late, as a warning says
	}
	for i := range bridges {
		b, err := d.bridgeStatus(&bridges[i])
		if err != nil {
			continue // removed this moment
		}
		st.Bridges = append(st.Bridges, b)
	}
	return st, nil
}

func (d *Daemon) bridgeStatus(b *config.Bridge) (api.BridgeStatus, error) {
	sb, err := d.sw.Bridge(b.Name)
	if err != nil {
		return api.BridgeStatus{}, err
	}
	st := api.BridgeStatus{Name: b.Name, Options: b.Options.Typed(), Counters: bridgeCounters(sb.Counters), FDB: d.fdbStats(sb)}
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	st.Flaps = d.flaps(b.Name)
	for _, sp := range sb.Ports {
		if p := r.ports[sp.Name]; p != nil && p.state != api.PortSelf {
			st.Ports = append(st.Ports, r.uplinkNotesLocked(p, d.withPlug(p, portStatus(p, sp))))
		}
	}
	// The local port first, as in the document: it is the bridge.
	slices.SortStableFunc(st.Ports, func(x, y api.PortStatus) int {
		return cmp.Compare(btoi(y.Type == "local"), btoi(x.Type == "local"))
	})
	if bs := r.bridges[b.Name]; bs != nil {
		st.Mirrors = mirrorStatus(bs, sb.Mirrors)
	}
	return st, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func portStatus(p *portState, sp vswitch.PortStats) api.PortStatus {
	return api.PortStatus{
		Name: p.port.Name, Type: string(p.port.Object()), State: p.state, Reason: p.reason, Since: p.since,
		Options: p.port.Options.Typed(), IfIndex: p.link.Index, MAC: p.link.MAC.String(), MTU: p.link.MTU,
		Workers: sp.Workers, RxRing: p.rxSlots, Notes: p.notes, Tunnel: tunnelStatus(p), Counters: portCounters(sp.Counters),
	}
}

// withPlug tells of a port whose interface forwards, and whose plug failed: what was set
// last did not come about, and what was there before stays.
func (d *Daemon) withPlug(p *portState, st api.PortStatus) api.PortStatus {
	if st.State != api.PortUp || p.port.Object() != config.PlugPort {
		return st
	}
	if k, ok := d.plugs.keeper.State(p.port.Name); ok && k.State == plug.Failed {
		st.State, st.Since = api.PortError, k.Since
		st.Reason = k.Reason + "; it forwards with what it had before, and is tried again"
	}
	return st
}

func mirrorStatus(bs *bridgeState, stats []vswitch.MirrorStats) []api.MirrorStatus {
	var all []api.MirrorStatus
	for _, name := range slices.Sorted(maps.Keys(bs.mirrors)) {
		m := bs.mirrors[name]
		st := api.MirrorStatus{Name: name, Options: m.mirror.Options.Typed(), State: "up"}
		for _, s := range stats {
			if s.Name == name {
				st.Frames, st.Dropped = s.Copied, s.Missed
			}
		}
		if m.file != nil {
			fs := m.file.status()
			st.File, st.Written = fs.Path, fs.Bytes
			st.Dropped += fs.Dropped
			if fs.Err != nil {
				st.Reason = fs.Err.Error()
			}
		}
		if st.Reason != "" {
			st.State = "error"
		}
		all = append(all, st)
	}
	return all
}

func portCounters(c vswitch.Counters) api.PortCounters {
	return api.PortCounters{
		RxFrames: c.RxFrames, RxBytes: c.RxBytes, RxMissed: c.RxMissed, TxFrames: c.TxFrames, TxBytes: c.TxBytes,
		Dropped: c.Dropped(), Drops: dropsByReason(c.Drops[:]),
	}
}

func bridgeCounters(c vswitch.BridgeCounters) api.BridgeCounters {
	return api.BridgeCounters{
		Received: c.Received, FloodCopies: c.FloodCopies, MirrorCopies: c.MirrorCopies, SplitCopies: c.SplitCopies, Answers: c.Answers,
		Sent: c.Sent, Dropped: c.Dropped, Drops: dropsByReason(c.Drops[:]),
	}
}

func dropsByReason(drops []vswitch.DropCount) map[string]uint64 {
	var m map[string]uint64
	for _, r := range vswitch.Reasons() {
		if n := drops[r].Count; n > 0 {
			if m == nil {
				m = map[string]uint64{}
			}
			m[r.String()] = n
		}
	}
	return m
}

// FDB is described at api.Service.
func (d *Daemon) FDB(_ context.Context, q api.FDBQuery) ([]api.FDBEntry, error) {
	match, err := d.matcher(q)
	if err != nil {
		return nil, err
	}
	bridges, err := d.chosen(q.Bridge)
	if err != nil {
		return nil, err
	}
	all := []api.FDBEntry{}
	for _, b := range bridges {
		entries, err := d.sw.FDB(b.Name, match)
		if err != nil {
			continue
		}
		for _, e := range entries {
			all = append(all, api.FDBEntry{
				Bridge: b.Name, VLAN: int(e.VLAN), MAC: net.HardwareAddr(e.MAC[:]).String(), Port: e.Port, Age: e.Age, Static: e.Static,
			})
		}
	}
	slices.SortFunc(all, func(x, y api.FDBEntry) int {
		return cmp.Or(cmp.Compare(x.Bridge, y.Bridge), cmp.Compare(x.VLAN, y.VLAN), cmp.Compare(x.MAC, y.MAC))
	})
	return all, nil
}

// matcher turns a query into a test of one entry.
func (d *Daemon) matcher(q api.FDBQuery) (func(vswitch.FDBEntry) bool, error) {
	if q.VLAN > 4095 {
		return nil, &api.Error{Status: 400, Message: fmt.Sprintf("vlan: %d is not a VLAN: want 0 to 4095", q.VLAN), Field: "vlan", Value: fmt.Sprint(q.VLAN), Allowed: "0 to 4095"}
	}
	if q.Port != "" && !d.hasPort(q.Bridge, q.Port) {
		return nil, unknown("port", q.Port)
	}
	var mac net.HardwareAddr
	if q.MAC != "" {
		var err error
		if mac, err = net.ParseMAC(q.MAC); err != nil || len(mac) != 6 {
			return nil, &api.Error{Status: 400, Message: fmt.Sprintf("mac: %q is not a MAC address: want six bytes such as 02:00:00:00:00:01", q.MAC), Field: "mac", Value: q.MAC}
		}
	}
	return func(e vswitch.FDBEntry) bool {
		return (q.VLAN < 0 || int(e.VLAN) == q.VLAN) && (q.Port == "" || e.Port == q.Port) &&
			(mac == nil || string(mac) == string(e.MAC[:]))
	}, nil
}

// hasPort reports whether the document has the port: in that bridge, or in any
// for "". A bridge's own name is its local port's.
func (d *Daemon) hasPort(bridge, port string) bool {
	doc := d.current()
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		if (bridge == "" || b.Name == bridge) && (b.Name == port || b.Port(port) != nil) {
			return true
		}
	}
	return false
}

// FDBStats is described at api.Service.
func (d *Daemon) FDBStats(_ context.Context, bridge string) ([]api.FDBStats, error) {
	bridges, err := d.chosen(bridge)
	if err != nil {
		return nil, err
	}
	all := []api.FDBStats{}
	for _, b := range bridges {
		if sb, err := d.sw.Bridge(b.Name); err == nil {
			all = append(all, d.fdbStats(sb))
		}
	}
	return all, nil
}

func (d *Daemon) fdbStats(b vswitch.BridgeStats) api.FDBStats {
	st := api.FDBStats{
		Bridge: b.Name, Entries: b.FDB.Entries, Static: b.FDB.Static, Size: b.FDB.Size, Aging: b.FDB.Aging,
		Learned: b.FDB.Learned, Expired: b.FDB.Expired, Evicted: b.FDB.Evicted, Moved: b.FDB.Moved,
	}
	moves, err := d.sw.FDBMoves(b.Name)
	if err != nil {
		return st
	}
	for _, m := range moves {
		st.Moves = append(st.Moves, api.FDBMove{
			VLAN: int(m.VLAN), MAC: net.HardwareAddr(m.MAC[:]).String(), From: m.From, To: m.To,
			Count: m.Count, Last: d.sw.Time(m.Last),
		})
	}
	return st
}

// FDBFlush is described at api.Service.
func (d *Daemon) FDBFlush(_ context.Context, q api.FDBQuery) (api.FlushResult, error) {
	match, err := d.matcher(q)
	if err != nil {
		return api.FlushResult{}, err
	}
	bridges, err := d.chosen(q.Bridge)
	if err != nil {
		return api.FlushResult{}, err
	}
	var res api.FlushResult
	for _, b := range bridges {
		n, _ := d.sw.FlushFDB(b.Name, match) // gone this moment: nothing to flush
		res.Flushed += n
	}
	return res, nil
}

// Stats is described at api.Service.
func (d *Daemon) Stats(_ context.Context, bridge, port string) ([]api.BridgeStats, error) {
	bridges, err := d.portsOf(bridge, port)
	if err != nil {
		return nil, err
	}
	all := []api.BridgeStats{}
	for _, b := range bridges {
		st := api.BridgeStats{Bridge: b.Name, Counters: bridgeCounters(b.Counters), Ports: []api.PortStats{}}
		for _, p := range b.Ports {
			st.Ports = append(st.Ports, api.PortStats{Port: p.Name, Counters: portCounters(p.Counters)})
		}
		all = append(all, st)
	}
	return all, nil
}

// portsOf returns the counters of the bridges asked for, of one port or of all.
func (d *Daemon) portsOf(bridge, port string) ([]vswitch.BridgeStats, error) {
	bridges, err := d.chosen(bridge)
	if err != nil {
		return nil, err
	}
	if port != "" && !d.hasPort(bridge, port) {
		return nil, unknown("port", port)
	}
	var all []vswitch.BridgeStats
	for _, b := range bridges {
		sb, err := d.sw.Bridge(b.Name)
		if err != nil {
			continue
		}
		sb.Ports = slices.DeleteFunc(sb.Ports, func(p vswitch.PortStats) bool { return d.reconciler.isSelf(p.Name) })
		if port != "" {
			sb.Ports = slices.DeleteFunc(sb.Ports, func(p vswitch.PortStats) bool { return p.Name != port })
			if len(sb.Ports) == 0 {
				continue
			}
		}
		all = append(all, sb)
	}
	return all, nil
}

// Workers is described at api.Service.
func (d *Daemon) Workers(context.Context) ([]api.WorkerStats, error) {
	all := []api.WorkerStats{}
	for i, w := range d.sw.Workers() {
		st := api.WorkerStats{
			Worker: i, Ports: w.Ports, Batches: w.Batches, Frames: w.Frames, Busy: w.Busy, Spinning: w.Spinning, Wakeups: w.Wakeups,
			Buffers: w.Buffers, Free: w.Free,
		}
		if w.Batches > 0 {
			st.MeanBatch = float64(w.Frames) / float64(w.Batches)
		}
		all = append(all, st)
	}
	return all, nil
}

// warnings gathers what an operator should know before anything else.
func (d *Daemon) warnings() []string {
	all := slices.Clone(d.store.Warnings())
	if v := d.wentBack.Load(); v != 0 {
		if p := d.pending(); p != nil && p.Version == v {
			all = append(all, fmt.Sprintf("version %d was not confirmed: the machine is back at version %d, but that could not be stored yet", v, p.Previous))
		}
	}
	all = append(all, d.reconciler.uplinks.warning)
	if n := d.reconciler.resyncs.Load(); n > 0 {
		all = append(all, fmt.Sprintf("interface events were lost %d times since start; everything was looked at anew each time", n))
	}
	all = append(all, d.plugs.warnings()...)
	return slices.DeleteFunc(all, func(s string) bool { return strings.TrimSpace(s) == "" })
}
