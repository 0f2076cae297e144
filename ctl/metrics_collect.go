package ctl

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vswitch/ctl/api"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// metricsCollector reads the daemon at each scrape. It keeps nothing of its own but
// what makes times grow only.
//
// Thread-safety: safe for concurrent use.
type metricsCollector struct {
	read func() *reading

	mu             sync.Mutex
	busy, spinning []float64 // seconds of each worker, as told last
}

// reading is what the daemon and its switch say at a scrape. It is taken at once, with
// no lock held while it is told.
type reading struct {
	version       api.Version
	configVersion uint64
	pending       bool
	warnings      int
	resyncs       uint64
	bridges       []bridgeReading
	endpoints     []api.Drop
	workers       []vswitch.WorkerStats
	elapsed       time.Duration // since the switch began
	recorder      vswitch.RecorderStats
	sflow         []api.SFlowStatus
}

type bridgeReading struct {
	vswitch.BridgeStats
	ports    []portReading // in the order of BridgeStats.Ports
	mirrors  []api.MirrorStatus
	flapping int
}

// portReading is what the reconciler knows of a port; its kind is "" if it is none of
// the bridge's, as a mesh's peer that is this host is.
type portReading struct {
	kind, state string
	tunnel      bool
	remote      string
	pathMTU     int
	bfd         int // state; below zero: it has no session
	flaps       uint64
	macnat      *ports.MACNATStats // nil: without
}

// reading reads everything. It takes the locks of the switch's and the reconciler's
// control side, which no worker takes.
func (d *Daemon) reading() *reading {
	version, _ := d.store.View()
	doc := d.current()
	r := &reading{
		version: d.version, configVersion: version, pending: d.pending() != nil, warnings: len(d.warnings()), resyncs: d.reconciler.resyncs.Load(),
		workers: d.sw.Workers(), elapsed: d.sw.Uptime(), recorder: d.sw.Recorder(), endpoints: d.endpointDrops(),
	}
	for i := range doc.Bridges {
		sb, err := d.sw.Bridge(doc.Bridges[i].Name)
		if err != nil {
			continue // made, or removed, this moment
		}
		b := bridgeReading{BridgeStats: sb, flapping: len(d.flaps(sb.Name))}
		d.reconciler.readPorts(&b)
		r.bridges = append(r.bridges, b)
	}
	r.sflow, _ = d.SFlow(context.Background(), "")
	return r
}

// readPorts adds what the reconciler knows of a bridge.
func (r *reconciler) readPorts(b *bridgeReading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.ports = make([]portReading, len(b.Ports))
	for i := range b.Ports {
		p := r.ports[b.Ports[i].Name]
		if p == nil || p.state == api.PortSelf {
			continue
		}
		x := &b.ports[i]
		x.kind, x.state, x.bfd = string(p.port.Object()), p.state, -1
		if d, ok := p.device.(*ports.Packet); ok {
			if s, ok := d.MACNAT(); ok {
				x.macnat = &s
			}
		}
		if p.tunnel == nil {
			continue
		}
		x.tunnel, x.remote, x.pathMTU = true, p.port.Options["remote_ip"], p.tunnel.path
		if s := p.tunnel.session; s != nil {
			x.bfd = 1 // down, until it begins
			if session := s.bfd.Load(); session != nil {
				st := session.Status()
				x.bfd, x.flaps = int(st.State), uint64(st.Flaps)
			}
		}
	}
	if bs := r.bridges[b.Name]; bs != nil {
		b.mirrors = mirrorStatus(bs, b.Mirrors)
	}
}

// Describe is prometheus.Collector's.
func (c *metricsCollector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range metricTable {
		to <- m.desc
	}
}

// Collect is prometheus.Collector's.
func (c *metricsCollector) Collect(to chan<- prometheus.Metric) {
	e, r := emitter(to), c.read()
	e.put(mBuildInfo, 1, r.version.Version, strings.TrimPrefix(r.version.Go, "go"), r.version.Kernel)
	e.count(mConfigVersion, r.configVersion)
	e.yes(mConfigPending, r.pending)
	e.put(mWarnings, float64(r.warnings))
	e.count(mResyncs, r.resyncs)
	for i := range r.bridges {
		e.bridge(&r.bridges[i])
	}
	e.endpoints(r.endpoints)
	c.workers(e, r)
	e.recorder(&r.recorder)
	for i := range r.sflow {
		e.sflow(&r.sflow[i])
	}
}

func (e emitter) bridge(b *bridgeReading) {
	c, f := &b.Counters, &b.FDB
	e.count(mBridgeReceived, c.Received, b.Name)
	e.count(mBridgeCopies, c.FloodCopies, b.Name, "flood")
	e.count(mBridgeCopies, c.MirrorCopies, b.Name, "mirror")
	e.count(mBridgeCopies, c.SplitCopies, b.Name, "split")
	e.count(mBridgeAnswers, c.Answers, b.Name)
	e.count(mBridgeSent, c.Sent, b.Name)
	e.count(mBridgeDropped, c.Dropped, b.Name)

	e.put(mFDBEntries, float64(f.Entries), b.Name)
	e.put(mFDBStatic, float64(f.Static), b.Name)
	e.put(mFDBMax, float64(f.Size), b.Name)
	e.count(mFDBLearned, f.Learned, b.Name)
	e.count(mFDBExpired, f.Expired, b.Name)
	e.count(mFDBEvicted, f.Evicted, b.Name)
	e.count(mFDBMoved, f.Moved, b.Name)
	e.put(mFDBFlapping, float64(b.flapping), b.Name)

	states := map[string]int{}
	reasons := vswitch.Reasons()
	for i := range b.ports {
		if b.ports[i].kind != "" {
			states[b.ports[i].state]++
			e.port(b.Name, &b.Ports[i], &b.ports[i], reasons)
		}
	}
	for _, s := range []string{api.PortUp, api.PortDown, api.PortWaiting, api.PortError} {
		e.put(mPorts, float64(states[s]), b.Name, s)
	}
	for i := range b.mirrors {
		m := &b.mirrors[i]
		e.yes(mMirrorUp, m.State == "up", b.Name, m.Name)
		e.count(mMirrorFrames, m.Frames, b.Name, m.Name)
		e.count(mMirrorLost, m.Dropped, b.Name, m.Name)
		e.count(mMirrorBytes, m.Written, b.Name, m.Name)
	}
}

func (e emitter) port(bridge string, p *vswitch.PortStats, x *portReading, reasons []vswitch.Reason) {
	c := &p.Counters
	e.yes(mPortUp, x.state == api.PortUp, bridge, p.Name, x.kind)
	e.count(mPortRx, c.RxFrames, bridge, p.Name)
	e.count(mPortRxB, c.RxBytes, bridge, p.Name)
	e.count(mPortTx, c.TxFrames, bridge, p.Name)
	e.count(mPortTxB, c.TxBytes, bridge, p.Name)
	for _, why := range reasons {
		if n := c.Drops[why].Count; n > 0 {
			e.count(mPortDrops, n, bridge, p.Name, why.String())
		}
	}
	if s := x.macnat; s != nil {
		e.put(mNATAddresses, float64(s.Addresses), bridge, p.Name)
		e.put(mNATMax, float64(s.Bound), bridge, p.Name)
		e.count(mNATEvicted, s.Evicted, bridge, p.Name)
		e.count(mNATMoved, s.Moved, bridge, p.Name)
		e.count(mNATRefused, s.Refused, bridge, p.Name)
		e.count(mNATUnknown, s.Unknown, bridge, p.Name)
		e.count(mNATOther, s.Other, bridge, p.Name)
		e.count(mNATReflected, s.Reflected, bridge, p.Name)
	}
	if !x.tunnel {
		return
	}
	e.yes(mTunnelUp, x.state == api.PortUp, bridge, p.Name, x.kind, x.remote)
	if x.pathMTU != 0 {
		e.put(mTunnelMTU, float64(x.pathMTU), bridge, p.Name)
	}
	if x.bfd >= 0 {
		e.put(mTunnelBFD, float64(x.bfd), bridge, p.Name)
		e.count(mTunnelFlaps, x.flaps, bridge, p.Name)
	}
}

// endpoints sums up over sources: who sends what belongs to nobody must not be able to
// make series.
func (e emitter) endpoints(drops []api.Drop) {
	type key struct{ endpoint, reason string }
	sums := map[key]uint64{}
	for i := range drops {
		sums[key{drops[i].Port, drops[i].Reason}] += drops[i].Count
	}
	for k, n := range sums {
		e.count(mEndDrops, n, k.endpoint, k.reason)
	}
}

var (
	batchBounds     = powers(vswitch.BatchBuckets, 1)
	residenceBounds = powers(vswitch.ResidenceBuckets-1, 1e-6)
)

func (c *metricsCollector) workers(e emitter, r *reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy == nil {
		c.busy, c.spinning = make([]float64, len(r.workers)), make([]float64, len(r.workers))
	}
	for i := range r.workers {
		w, name := &r.workers[i], strconv.Itoa(i)
		// Shares of a time that was read a moment before this one: a counter that went
		// back by a microsecond would look as if it had begun anew.
		c.busy[i] = max(c.busy[i], w.Busy*r.elapsed.Seconds())
		c.spinning[i] = max(c.spinning[i], w.Spinning*r.elapsed.Seconds())
		e.put(mWorkerBusy, c.busy[i], name)
		e.put(mWorkerSpinning, c.spinning[i], name)
		e.count(mWorkerWakeups, w.Wakeups, name)
		e.put(mWorkerBuffers, float64(w.Buffers), name)
		e.put(mWorkerFree, float64(w.Free), name)
		e.histogram(mBatch, batchBounds, w.BatchSizes[:], float64(w.Frames), name)
		e.histogram(mResidence, residenceBounds, w.Residence[:], w.ResidenceSum.Seconds(), name)
	}
}

func (e emitter) recorder(st *vswitch.RecorderStats) {
	e.count(mRecFrames, st.Frames)
	e.count(mRecDrops, st.Drops)
	e.count(mRecSkipped, st.Skipped)
	if !st.Oldest.IsZero() {
		e.put(mRecOldest, float64(st.Oldest.UnixMicro())/1e6)
	}
}

func (e emitter) sflow(st *api.SFlowStatus) {
	var datagrams, errors uint64
	for _, t := range st.Targets {
		datagrams, errors = datagrams+t.Datagrams, errors+t.Errors
	}
	e.yes(mSFlowUp, st.State == "up", st.Bridge)
	e.count(mSFlowSamples, st.Samples, st.Bridge)
	e.count(mSFlowLost, st.Missed, st.Bridge)
	e.count(mSFlowDatagrams, datagrams, st.Bridge)
	e.count(mSFlowErrors, errors, st.Bridge)
}
