package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/capture/sflow"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

const (
	sflowFlush = 500 * time.Millisecond // that a sample waits for others in its datagram at most
	sflowRest  = 16 * time.Millisecond  // between two looks for samples, at most
	sflowRetry = time.Second            // between tries to begin, and between looks at interfaces
	agentEvery = 10 * time.Second       // between looks whether the agent's address is still that one
)

// sflowsLocked makes the exporters of all bridges as they should be. One that did not
// change goes on undisturbed.
func (r *reconciler) sflowsLocked() {
	for name, e := range r.exports {
		if b := r.desired.Bridge(name); b == nil || b.SFlow == nil || !maps.Equal(b.SFlow, e.options) {
			e.stop()
			delete(r.exports, name)
		}
	}
	for i := range r.desired.Bridges {
		if b := &r.desired.Bridges[i]; b.SFlow != nil && r.exports[b.Name] == nil {
			r.exports[b.Name] = r.export(b)
		}
	}
}

// closeSFlowsLocked ends all exporters.
func (r *reconciler) closeSFlowsLocked() {
	for name, e := range r.exports {
		e.stop()
		delete(r.exports, name)
	}
}

// exporter tells collectors of one bridge's traffic. A goroutine of its own reads the
// samples and sends them; it waits for nobody, and nobody waits for it but stop.
//
// Thread-safety: stop and status may be called from any goroutine, stop once.
type exporter struct {
	r       *reconciler
	bridge  string
	options config.Options
	sub     uint32 // number of the bridge at the agent
	rate    int    // one frame in so many is sampled
	header  int    // bytes of it that are told
	log     *slog.Logger
	began   time.Time
	cancel  context.CancelFunc
	ended   chan struct{}

	// mu guards what follows. It is taken after reconciler.mu; the goroutine, which
	// holds it, only tries to take that one, since it may be held for seconds.
	mu      sync.Mutex
	watch   *vswitch.Watch // nil: not begun
	encoder *sflow.Encoder
	agent   netip.Addr
	targets []*collector
	indexes map[string]uint32 // of the bridge's ports

	tried, looked, agentAt, flushed time.Time
	pollAt                          time.Time
	unknown                         bool     // a port was met that indexes lacks
	known                           uint64   // samples when it was looked which indexes there are
	waiting                         []polled // reports that were not sent yet
	reason                          string
	scratch                         []byte

	samples, reports uint64
}

// export begins to export a bridge.
func (r *reconciler) export(b *config.Bridge) *exporter {
	e := &exporter{
		r: r, bridge: b.Name, options: b.SFlow, sub: r.numbers.of(" " + b.Name), log: r.log.With("bridge", b.Name),
		rate: b.SFlow.Int("sampling"), header: b.SFlow.Int("header"), began: time.Now(), ended: make(chan struct{}), indexes: map[string]uint32{},
		scratch: make([]byte, sflow.MaxHeader+2*frame.TagLen),
	}
	for _, t := range e.options.Targets("target") {
		e.targets = append(e.targets, &collector{address: t})
	}
	e.tried = e.began
	e.indexesLocked(e.began)
	e.openLocked(e.began) // nobody else has it yet
	var ctx context.Context
	ctx, e.cancel = context.WithCancel(context.Background())
	go e.run(ctx) // ended by stop
	return e
}

// stop ends the exporter, after sending what it has.
func (e *exporter) stop() {
	e.cancel()
	<-e.ended
}

func (e *exporter) run(ctx context.Context) {
	defer close(e.ended)
	rest := vswitch.PollEvery
	wake := time.NewTimer(rest)
	defer wake.Stop()
	for {
		select {
		case <-ctx.Done():
			e.end()
			return
		case now := <-wake.C:
			e.mu.Lock()
			n := e.turnLocked(now)
			e.mu.Unlock()
			// A watch holds thousands of samples: who has none to read can rest longer.
			if rest = min(2*rest, sflowRest); n > 0 {
				rest = vswitch.PollEvery
			}
			wake.Reset(rest)
		}
	}
}

// turnLocked does what is due, and returns how many samples and reports there were.
func (e *exporter) turnLocked(now time.Time) (samples int) {
	if since := now.Sub(e.looked); e.unknown && since >= sflowRetry/10 || e.samples != e.known && since >= sflowRetry {
		e.lookLocked(now)
	}
	if now.Sub(e.tried) >= sflowRetry {
		e.tried = now
		e.openLocked(now)
	}
	if e.watch == nil {
		return 0
	}
	samples = e.watch.Read(e.sampleLocked)
	if every := e.options.Duration("polling"); every > 0 && !now.Before(e.pollAt) && len(e.waiting) == 0 && e.pollLocked() {
		e.pollAt = now.Add(every)
	}
	samples += e.reportLocked()
	if e.encoder.Pending() == 0 {
		e.flushed = now
	} else if now.Sub(e.flushed) >= sflowFlush {
		e.flushed = now
		e.encoder.Flush(time.Since(e.began))
	}
	return samples
}

// openLocked opens what is not open: sockets, and, once there is an agent's address,
// the watch. It tells when things begin to go wrong, or well.
func (e *exporter) openLocked(now time.Time) {
	for _, t := range e.targets {
		t.open()
	}
	if !e.agent.IsValid() || now.Sub(e.agentAt) >= agentEvery {
		e.agentAt = now
		agent, err := e.findAgent()
		if err == nil && agent != e.agent {
			e.agent = agent
			if e.encoder != nil {
				e.encoder.SetAgent(agent)
			}
		}
		if !e.agent.IsValid() {
			e.tellLocked(err)
			return
		}
	}
	if e.watch == nil {
		w, err := e.r.sw.Watch(vswitch.WatchConfig{
			Bridge: e.bridge, In: true, Sample: e.rate, Snap: e.header,
		})
		if err != nil {
			e.tellLocked(err)
			return
		}
		e.watch, e.encoder = w, sflow.NewEncoder(e.agent, e.sub, e.send)
	}
	for _, t := range e.targets {
		if t.failed != nil {
			e.tellLocked(fmt.Errorf("%s: %w", t.address, t.failed))
			return
		}
	}
	e.tellLocked(nil)
}

// tellLocked notes why sFlow does not work, or that it does, and logs the change.
func (e *exporter) tellLocked(err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	switch {
	case reason == e.reason:
	case err != nil:
		e.log.Warn("sFlow does not reach its collectors; trying on", "err", err)
	default:
		e.log.Info("sFlow reaches its collectors again")
	}
	e.reason = reason
}

// findAgent returns the address by which collectors know this switch.
func (e *exporter) findAgent() (netip.Addr, error) {
	want := e.options.Text("agent")
	if want == "" {
		for _, t := range e.targets {
			if t.local.IsValid() {
				return t.local, nil
			}
		}
		return netip.Addr{}, fmt.Errorf("no address leads to a target, and agent= is not set: %w", e.targets[0].failed)
	}
	if a, err := netip.ParseAddr(want); err == nil {
		return a, nil
	}
	iface, err := net.InterfaceByName(want)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("agent=%s: %w", want, errors.New("there is no such interface"))
	}
	addresses, err := iface.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("agent=%s: %w", want, err)
	}
	var best netip.Addr
	for _, x := range addresses {
		p, err := netip.ParsePrefix(x.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		// Of the first collector's family, if it has one of that.
		if a := p.Addr().Unmap(); !best.IsValid() || !sameFamily(best, e.targets[0].address.Addr()) && sameFamily(a, e.targets[0].address.Addr()) {
			best = a
		}
	}
	if !best.IsValid() {
		return best, fmt.Errorf("agent=%s: the interface has no address", want)
	}
	return best, nil
}

func sameFamily(a, b netip.Addr) bool { return a.Is4() == b.Is4() }

// sampleLocked adds what was seen of a frame that came in.
func (e *exporter) sampleLocked(s *vswitch.Sighting) {
	e.samples++
	f := sflow.Flow{
		Source: sflow.Entity(e.sub), Rate: uint32(e.rate), Pool: uint32(e.poolLocked()), Drops: uint32(e.watch.Missed()),
		Input: e.indexLocked(s.Port), FrameLen: s.WireLen, VLANIn: s.VLAN, VLANOut: s.VLAN, Header: s.Data,
	}
	if s.Tag.Present() {
		f.VLANIn, f.PriorityIn, f.PriorityOut = s.Tag.VID(), uint8(s.Tag.TCI>>13), uint8(s.Tag.TCI>>13)
		if len(s.Data) >= frame.AddrLen {
			n := copy(e.scratch[frame.TagLen:], s.Data)
			f.Header = s.Tag.Insert(e.scratch[:frame.TagLen+n])
			f.Header = f.Header[:min(len(f.Header), e.header)]
		}
	}
	switch {
	case s.Reason != vswitch.DropNone:
		f.Output, f.VLANOut, f.PriorityOut = discard(s.Reason).Output(), 0, 0
	case s.Outputs > 1:
		f.Output = sflow.OutputMany(s.Outputs)
	case s.Outputs == 1:
		f.Output = sflow.OutputTo(e.indexLocked(s.Output))
	}
	e.encoder.Flow(&f, time.Since(e.began))
}

// discard turns a reason into the nearest that sFlow has.
func discard(why vswitch.Reason) sflow.Discard {
	switch why {
	case vswitch.DropStormBroadcast, vswitch.DropStormUnknown, vswitch.DropStormMulticast:
		return sflow.DiscardRate
	case vswitch.DropVLANTagged, vswitch.DropVLANNotTrunked, vswitch.DropMirrorPort, vswitch.DropReserved, vswitch.DropProbeRefused, vswitch.DropDenied:
		return sflow.DiscardPolicy
	case vswitch.DropBuffers, vswitch.DropRingFull, vswitch.DropQueueFull, vswitch.DropMissed:
		return sflow.DiscardNoBuffer
	case vswitch.DropMTU, vswitch.DropLong:
		return sflow.DiscardTooBig
	case vswitch.DropPatchLoop:
		return sflow.DiscardLoop
	}
	return sflow.DiscardUnknown
}

// poolLocked returns how many frames could have been sampled. A watch that passes over
// none does not count them.
func (e *exporter) poolLocked() uint64 {
	if e.rate == 1 {
		return e.samples + e.watch.Missed()
	}
	return e.watch.Pool()
}

// send gives a datagram to every collector.
func (e *exporter) send(datagram []byte) {
	for _, t := range e.targets {
		t.send(datagram)
	}
}

// end sends what is left, and lets go of everything.
func (e *exporter) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watch != nil {
		e.watch.Close()
		e.watch.Read(e.sampleLocked)
		e.encoder.Flush(time.Since(e.began))
	}
	for _, t := range e.targets {
		t.close()
	}
}

// status says how it is going.
func (e *exporter) status() api.SFlowStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := api.SFlowStatus{
		Bridge: e.bridge, Options: e.options.Typed(), State: "up", Reason: e.reason, SubAgent: e.sub, Samples: e.samples, Reports: e.reports,
	}
	if e.agent.IsValid() {
		st.Agent = e.agent.String()
	}
	if e.watch != nil {
		st.Pool, st.Missed = e.poolLocked(), e.watch.Missed()
	}
	if e.reason != "" || e.watch == nil {
		st.State = "error"
	}
	for _, t := range e.targets {
		x := api.SFlowTarget{Address: t.address.String(), Datagrams: t.sent, Errors: t.errors}
		if t.failed != nil {
			x.Reason = t.failed.Error()
		}
		st.Targets = append(st.Targets, x)
	}
	return st
}

// SFlow is described at api.Service.
func (d *Daemon) SFlow(_ context.Context, bridge string) ([]api.SFlowStatus, error) {
	if _, err := d.chosen(bridge); err != nil {
		return nil, err
	}
	r := d.reconciler
	r.mu.Lock()
	var exports []*exporter
	for _, name := range slices.Sorted(maps.Keys(r.exports)) {
		if bridge == "" || bridge == name {
			exports = append(exports, r.exports[name])
		}
	}
	r.mu.Unlock() // an exporter may be asking the kernel something
	all := []api.SFlowStatus{}
	for _, e := range exports {
		all = append(all, e.status())
	}
	return all, nil
}

// collector is where datagrams go.
//
// Thread-safety: none; exporter.mu guards it.
type collector struct {
	address netip.AddrPort
	conn    *net.UDPConn // nil: not open
	local   netip.Addr   // from which datagrams leave
	failed  error        // why one did not get there lately; nil: all did, as far as can be known
	at      time.Time    // when that was; zero: it could not be opened

	sent, errors uint64
}

// failing is how long after the last failure a collector counts as failing. A host on
// which nobody listens says so once a second at most, whatever comes.
const failing = 5 * time.Second

func (c *collector) fail(err error, at time.Time) { c.failed, c.at = err, at }

// open opens the socket where it is not.
func (c *collector) open() {
	if c.conn != nil {
		return
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.address))
	if err != nil {
		c.fail(short(err), time.Time{})
		return
	}
	if c.conn = conn; c.at.IsZero() {
		c.failed = nil
	}
	c.local = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// send sends a datagram, or counts that it could not be sent. It never waits: what a
// full socket buffer does not take is lost.
func (c *collector) send(datagram []byte) {
	if c.conn == nil {
		c.errors++
		return
	}
	err := c.write(datagram)
	if errors.Is(err, unix.ECONNREFUSED) {
		// Word of an earlier datagram, that nobody listens there. This one has not been
		// sent; somebody may listen by now.
		c.errors++
		c.fail(unix.ECONNREFUSED, time.Now())
		if c.write(datagram) == nil {
			c.sent++
		}
		return
	}
	if err == nil {
		c.sent++
		if c.failed != nil && time.Since(c.at) >= failing {
			c.failed = nil
		}
		return
	}
	c.errors++
	c.fail(err, time.Now())
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
		c.close() // its address may have gone: the next one finds another
	}
}

func (c *collector) write(datagram []byte) error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		_, sent = unix.Write(int(fd), datagram)
		return true // whatever it said
	})
	if err != nil {
		return err
	}
	return sent
}

func (c *collector) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// short is an error without what the library says around it.
func short(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
