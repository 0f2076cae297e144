package vswitch

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"vswitch/fdb"
)

// countersLocked sums up a port's counters, what the kernel lost included.
func (s *Switch) countersLocked(p *port) Counters {
	c := sum(p.counters)
	missed := p.missed
	if p.device != nil {
		missed += p.device.Missed()
	}
	if missed > p.missedSeen {
		p.missedSeen, p.missedLast = missed, s.Now()
	}
	c.Drops[DropMissed].add(missed, p.missedLast)
	c.RxMissed += missed
	return c
}

// PortStats is one port and what it did.
type PortStats struct {
	Name     string
	Attached bool  // it has a device, or a patch port its peer
	Workers  []int // that read its queues, one a queue
	Counters Counters
}

// BridgeStats is one bridge and what it did.
type BridgeStats struct {
	Name     string
	Counters BridgeCounters
	Ports    []PortStats // by name
	Mirrors  []MirrorStats
	FDB      fdb.Stats
}

// MirrorStats is what a mirror did.
type MirrorStats struct {
	Name   string
	Copied uint64 // frames
	Missed uint64 // copies that found the file's ring full
}

// Bridge returns a bridge's counters. They are read while frames go through, so
// sums meet exactly only when none does.
func (s *Switch) Bridge(name string) (BridgeStats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[name]
	if b == nil {
		return BridgeStats{}, fmt.Errorf("read bridge %s: %w", name, ErrNotExist)
	}
	st := BridgeStats{Name: name, FDB: b.fdb.Stats()}
	total := b.removed
	for _, p := range b.ports {
		ps := PortStats{Name: p.name, Attached: p.device != nil || s.peerLocked(p) >= 0, Counters: s.countersLocked(p)}
		for _, q := range p.queues {
			ps.Workers = append(ps.Workers, q.worker)
		}
		total.Add(&ps.Counters)
		st.Ports = append(st.Ports, ps)
	}
	slices.SortFunc(st.Ports, func(a, b PortStats) int { return cmp.Compare(a.Name, b.Name) })
	c := &st.Counters
	c.Received, c.Sent, c.Dropped, c.Drops = total.RxFrames+total.RxMissed, total.TxFrames, total.Dropped(), total.Drops
	for i := range b.counters {
		w := &b.counters[i]
		c.FloodCopies += w.floodCopies.Load()
		c.MirrorCopies += w.mirrorCopies.Load()
		c.SplitCopies += w.splitCopies.Load()
		c.Answers += w.answers.Load()
		c.Sent += w.captured.Load()
	}
	for _, m := range b.mirrors {
		st.Mirrors = append(st.Mirrors, MirrorStats{
			Name: m.config.Name, Copied: m.copied.Load(), Missed: m.missed.Load(),
		})
	}
	return st, nil
}

// WorkerStats is what a worker did.
type WorkerStats struct {
	Ports   []string // whose queues it reads, by name
	Batches uint64
	Frames  uint64
	Wakeups uint64 // returns from a blocking wait
	// Shares of the time since the switch started, 0 to 1: with work, and looking
	// for work before it blocks (Options.BusyPoll). The rest it slept.
	Busy, Spinning float64
	Buffers        int
	Free           int
	// BatchSizes[i] counts batches of at most 1<<i frames, and more than those before.
	BatchSizes [BatchBuckets]uint64
	// Residence[i] counts batches that were at most 1<<i microseconds in the switch,
	// from before they were read to after they were sent, and longer than those
	// before; the last one those that were longer still. One in ResidenceSample is
	// measured. ResidenceSum is of all measured.
	Residence    [ResidenceBuckets]uint64
	ResidenceSum time.Duration
}

// Sizes of WorkerStats' histograms, and of their sample.
const (
	BatchBuckets     = 7
	ResidenceBuckets = 17
	ResidenceSample  = 16
)

// Workers returns what each worker did.
func (s *Switch) Workers() []WorkerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]WorkerStats, len(s.workers))
	for i, w := range s.workers {
		now := s.nanotime()
		idle := w.stats.idle.Load()
		if since := w.stats.waiting.Load(); since > 0 {
			idle += now - since
		}
		all[i] = WorkerStats{
			Batches: w.stats.batches.Load(), Frames: w.stats.frames.Load(), Wakeups: w.stats.wakeups.Load(),
			Busy: min(max(1-float64(idle)/float64(now), 0), 1), Spinning: min(float64(w.stats.spun.Load())/float64(now), 1),
			Buffers: w.buffers, Free: int(w.stats.free.Load()),
		}
	}
	for i, w := range s.workers {
		for j := range all[i].BatchSizes {
			all[i].BatchSizes[j] = w.stats.sizes[j].Load()
		}
		for j := range all[i].Residence {
			all[i].Residence[j] = w.stats.residence[j].Load()
		}
		all[i].ResidenceSum = time.Duration(w.stats.residedTime.Load())
	}
	for _, p := range s.ports {
		for _, q := range p.queues {
			all[q.worker].Ports = append(all[q.worker].Ports, p.name)
		}
	}
	for i := range all {
		slices.Sort(all[i].Ports)
	}
	return all
}

// FDBEntry is one MAC address of a bridge.
type FDBEntry struct {
	VLAN   uint16
	MAC    [6]byte
	Port   string
	Static bool
	Age    int // seconds since it was seen; 0 for a static one
}

// entry turns a table's entry into one with names, on the switch's clock.
func (s *Switch) entry(e fdb.Entry, now uint32) FDBEntry {
	x := FDBEntry{VLAN: e.Key.VLAN(), MAC: e.Key.MAC(), Port: s.portName(uint32(e.Port)), Static: e.Static}
	if !e.Static {
		x.Age = max(int(int32(now-e.LastSeen)), 0)
	}
	return x
}

// table returns a bridge's FDB.
func (s *Switch) table(bridge string) (*fdb.FDB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.bridges[bridge]; b != nil {
		return b.fdb, nil
	}
	return nil, fmt.Errorf("read the FDB of bridge %s: %w", bridge, ErrNotExist)
}

// FDB returns the MAC addresses of a bridge that match, in no order.
func (s *Switch) FDB(bridge string, match func(FDBEntry) bool) ([]FDBEntry, error) {
	t, err := s.table(bridge)
	if err != nil {
		return nil, err
	}
	var all []FDBEntry
	now := s.Now()
	for e := range t.Entries {
		if x := s.entry(e, now); match(x) {
			all = append(all, x)
		}
	}
	return all, nil
}

// FlushFDB forgets what was learned and matches, and returns how many that were.
func (s *Switch) FlushFDB(bridge string, match func(FDBEntry) bool) (int, error) {
	t, err := s.table(bridge)
	if err != nil {
		return 0, err
	}
	now := s.Now()
	return t.Flush(func(e fdb.Entry) bool { return match(s.entry(e, now)) }), nil
}

// FDBMove is a MAC address that changed ports.
type FDBMove struct {
	VLAN     uint16
	MAC      [6]byte
	From, To string
	Count    uint64
	Last     uint32 // seconds on the switch's clock
}

// FDBMoves returns the MAC addresses of a bridge that moved, the latest first.
func (s *Switch) FDBMoves(bridge string) ([]FDBMove, error) {
	t, err := s.table(bridge)
	if err != nil {
		return nil, err
	}
	var all []FDBMove
	for _, m := range t.Moves() {
		all = append(all, FDBMove{
			VLAN: m.Key.VLAN(), MAC: m.Key.MAC(), From: s.portName(uint32(m.From)), To: s.portName(uint32(m.To)),
			Count: m.Count, Last: m.Last,
		})
	}
	return all, nil
}

// FDBFlap is a MAC address that moved between ports too fast, and is held at one
// of them.
type FDBFlap struct {
	VLAN        uint16
	MAC         [6]byte
	Held, Other string // ports
	Count       uint64 // times it was found to flap
	Until       uint32 // when it may move again; seconds on the switch's clock
}

// FDBFlaps returns the MAC addresses of a bridge that flapped, in no order.
func (s *Switch) FDBFlaps(bridge string) ([]FDBFlap, error) {
	t, err := s.table(bridge)
	if err != nil {
		return nil, err
	}
	var all []FDBFlap
	for _, f := range t.Flaps() {
		all = append(all, FDBFlap{
			VLAN: f.Key.VLAN(), MAC: f.Key.MAC(), Held: s.portName(uint32(f.Held)), Other: s.portName(uint32(f.Other)),
			Count: f.Count, Until: f.Until,
		})
	}
	return all, nil
}

// StaticMAC is an entry that learning does not move.
type StaticMAC struct {
	VLAN uint16
	MAC  [6]byte
	Port string
}

// SetStatic makes want the static entries of a bridge.
func (s *Switch) SetStatic(bridge string, want []StaticMAC) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[bridge]
	if b == nil {
		return fmt.Errorf("set static MACs of bridge %s: %w", bridge, ErrNotExist)
	}
	if len(want) > 0 {
		s.publishPendingLocked() // a worker that looks one up finds its port
	}
	keep := map[fdb.Key]fdb.Port{}
	for _, m := range want {
		p := b.ports[m.Port]
		if p == nil {
			return fmt.Errorf("set static MACs of bridge %s: port %s %w", bridge, m.Port, ErrNotExist)
		}
		keep[fdb.MakeKey(m.VLAN, &m.MAC)] = fdb.Port(p.id)
	}
	var stale []fdb.Key
	for e := range b.fdb.Entries {
		if !e.Static {
			continue
		}
		if p, ok := keep[e.Key]; ok && p == e.Port {
			delete(keep, e.Key)
		} else {
			stale = append(stale, e.Key)
		}
	}
	for _, k := range stale {
		b.fdb.DelStatic(k)
	}
	for k, p := range keep {
		if err := b.fdb.AddStatic(k, p); err != nil {
			return fmt.Errorf("set static MACs of bridge %s: %w", bridge, err)
		}
	}
	return nil
}
