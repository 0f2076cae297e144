package ctl

import (
	"context"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	vswitch "vswitch/switch"
)

// Looks at the counts of drops, for their rates. All counts of a thousand ports take
// 2.5 ms, and leave 2 MB of garbage: they are only read where the flight recorder says
// that something was dropped, and now and then for what it does not see.
const (
	ledgerEvery = 2 * time.Second
	ledgerWhole = 5 // looks, of which one at least reads all counts
)

// ledger keeps the last two looks at the counts of drops: a rate is what came since
// the older one, of the last two to four seconds. What the recorder does not see, the
// frames that the kernel lost and strangers at tunnels, is of the last twelve at most.
//
// Thread-safety: safe for concurrent use.
type ledger struct {
	mu           sync.Mutex
	older, newer dropCounts
}

type dropKey struct {
	bridge, port, source string
	reason               string
}

type dropCounts struct {
	at     time.Time // zero: there was no look yet
	read   time.Time // when counts were
	counts map[dropKey]uint64
}

func keyOf(x *api.Drop) dropKey { return dropKey{x.Bridge, x.Port, x.Source, x.Reason} }

// look keeps what was counted at a moment.
func (l *ledger) look(now time.Time, drops []api.Drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[dropKey]uint64{}
	for i := range drops {
		counts[keyOf(&drops[i])] = drops[i].Count
	}
	l.older, l.newer = l.newer, dropCounts{now, now, counts}
}

// still says that the recorder saw no drop since the last look.
func (l *ledger) still(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.older = l.newer
	l.newer.at = now
}

// unseen reports whether drops of a kind happen where the recorder does not see them.
func (k *dropKey) unseen() bool {
	return k.bridge == "" || k.reason == vswitch.DropMissed.String() || k.reason == vswitch.DropUnreadable.String()
}

// rate fills in the rates of what was counted now.
func (l *ledger) rate(now time.Time, drops []api.Drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.older
	if from.at.IsZero() {
		from = l.newer
	}
	if from.at.IsZero() {
		return
	}
	for i := range drops {
		x := &drops[i]
		k, n := keyOf(x), x.Count
		if was := from.counts[k]; was <= n {
			n -= was // else the port was made anew since
		}
		since := from.at
		if k.unseen() {
			since = from.read
		}
		if span := now.Sub(since).Seconds(); span > 0 {
			x.Rate = float64(n) / span
		}
	}
}

// keepLedger looks at the counts of drops until done is closed.
func (d *Daemon) keepLedger(done <-chan struct{}) {
	tick := time.NewTicker(ledgerEvery)
	defer tick.Stop()
	var drops []api.Drop
	var recorded uint64 // drops, at the last look
	for n := 0; ; n++ {
		st := d.sw.Recorder()
		if st.Bytes == 0 || st.Drops != recorded || n%ledgerWhole == 0 {
			recorded = st.Drops
			drops = d.lookAtDrops(drops[:0])
			d.seen.ledger.look(time.Now(), drops)
		} else {
			d.seen.ledger.still(time.Now())
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// lookAtDrops appends the counts of all drops to drops.
func (d *Daemon) lookAtDrops(drops []api.Drop) []api.Drop {
	_, doc := d.store.View()
	for i := range doc.Bridges {
		b, err := d.sw.Bridge(doc.Bridges[i].Name)
		if err != nil {
			continue // removed this moment
		}
		for i := range b.Ports {
			p := &b.Ports[i]
			for r := range p.Counters.Drops {
				if n := p.Counters.Drops[r].Count; n > 0 {
					drops = append(drops, api.Drop{Bridge: b.Name, Port: p.Name, Reason: vswitch.Reason(r).String(), Count: n})
				}
			}
		}
	}
	return append(drops, d.endpointDrops()...)
}

// countDrops returns what was dropped, without rates and frames.
func (d *Daemon) countDrops(bridge, port string) ([]api.Drop, error) {
	bridges, err := d.portsOf(bridge, port)
	if err != nil {
		return nil, err
	}
	all := []api.Drop{}
	for _, b := range bridges {
		for i := range b.Ports {
			p := &b.Ports[i]
			for r := range p.Counters.Drops {
				if n := p.Counters.Drops[r]; n.Count > 0 {
					r := vswitch.Reason(r)
					all = append(all, api.Drop{
						Bridge: b.Name, Port: p.Name, Reason: r.String(), Count: n.Count, LastSeen: d.sw.Time(n.Last), Help: r.Help(),
					})
				}
			}
		}
	}
	if bridge == "" && port == "" {
		all = append(all, d.endpointDrops()...)
	}
	return all, nil
}

// Drops is described at api.Service.
func (d *Daemon) Drops(_ context.Context, bridge, port string) ([]api.Drop, error) {
	all, err := d.countDrops(bridge, port)
	if err != nil {
		return nil, err
	}
	d.seen.ledger.rate(time.Now(), all)
	reasons := reasonsByName()
	for i := range all {
		x := &all[i]
		if r, ok := reasons[x.Reason]; ok && x.Bridge != "" {
			d.lastDrop(x, r)
		}
	}
	// What happened last is what the operator came for.
	slices.SortStableFunc(all, func(x, y api.Drop) int { return y.LastSeen.Compare(x.LastSeen) })
	return all, nil
}

func reasonsByName() map[string]vswitch.Reason {
	m := map[string]vswitch.Reason{}
	for _, r := range vswitch.Reasons() {
		m[r.String()] = r
	}
	return m
}

// lastDrop fills in the last frame that was dropped so, if the switch has it.
func (d *Daemon) lastDrop(x *api.Drop, r vswitch.Reason) {
	s, ok := d.sw.LastDrop(x.Port, r)
	if !ok {
		return // it never had the frame, or the port is gone
	}
	x.LastFrame, x.Addresses = lineOf(&s), addressesOf(&s)
}
