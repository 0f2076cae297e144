package ctl

import (
	"context"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	vswitch "vswitch/switch"
)

// ledgerEvery is how often the counts of drops are looked at for their rates. One look
// at a thousand ports takes about a millisecond.
const ledgerEvery = 2 * time.Second

// ledger keeps the last two looks at the counts of drops: a rate is what came since
// the older one, of the last two to four seconds.
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
	counts map[dropKey]uint64
}

func keyOf(x *api.Drop) dropKey { return dropKey{x.Bridge, x.Port, x.Source, x.Reason} }

// look keeps what was counted at a moment.
func (l *ledger) look(now time.Time, drops []api.Drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := l.older.counts
	if counts == nil {
		counts = map[dropKey]uint64{}
	}
	clear(counts)
	for i := range drops {
		counts[keyOf(&drops[i])] = drops[i].Count
	}
	l.older, l.newer = l.newer, dropCounts{now, counts}
}

// rate fills in the rates of what was counted now.
func (l *ledger) rate(now time.Time, drops []api.Drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.older
	if from.at.IsZero() {
		from = l.newer
	}
	span := now.Sub(from.at).Seconds()
	if from.at.IsZero() || span <= 0 {
		return
	}
	for i := range drops {
		x := &drops[i]
		n := x.Count
		if was := from.counts[keyOf(x)]; was <= n {
			n -= was // else the port was made anew since
		}
		x.Rate = float64(n) / span
	}
}

// keepLedger looks at the counts of drops until done is closed.
func (d *Daemon) keepLedger(done <-chan struct{}) {
	tick := time.NewTicker(ledgerEvery)
	defer tick.Stop()
	for {
		if drops, err := d.countDrops("", ""); err == nil {
			d.seen.ledger.look(time.Now(), drops)
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
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
