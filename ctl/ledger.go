package ctl

import (
	"context"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	vswitch "vswitch/switch"
)

// Looks at the counts of drops, for their rates. What the kernel lost has to be asked
// for, port by port, and strangers at tunnels endpoint by endpoint.
const (
	ledgerEvery = 2 * time.Second
	ledgerWhole = 5 // looks, of which one asks the kernel, too
)

// ledger keeps the last two looks at the counts of drops: a rate is what came since
// the older one, of the last two to four seconds; of what the kernel lost, and of
// strangers at tunnels, since the last time that was asked for, twelve at most.
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

	asked   time.Time // when counts that have to be asked for were
	unasked map[dropKey]uint64
}

func keyOf(x *api.Drop) dropKey { return dropKey{x.Bridge, x.Port, x.Source, x.Reason} }

// look keeps what was counted at a moment; asked is nil when nobody asked.
func (l *ledger) look(now time.Time, counts, asked map[dropKey]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.older = l.newer
	l.newer.at, l.newer.counts = now, counts
	if asked != nil {
		l.newer.asked, l.newer.unasked = now, asked
	}
}

// unseen reports whether drops of a kind have to be asked for.
func (k *dropKey) unseen() bool {
	return k.bridge == "" || k.reason == vswitch.DropMissed.String()
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
		was, since := from.counts[k], from.at
		if k.unseen() {
			was, since = from.unasked[k], from.asked
		}
		if was <= n {
			n -= was // else the port was made anew since
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
	for n := 0; ; n++ {
		d.look(n%ledgerWhole == 0)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// look takes the counts of all drops into the ledger.
func (d *Daemon) look(ask bool) {
	counts := map[dropKey]uint64{}
	d.sw.EachDrop(func(bridge, port string, why vswitch.Reason, n vswitch.DropCount) {
		counts[dropKey{bridge: bridge, port: port, reason: why.String()}] = n.Count
	})
	var asked map[dropKey]uint64
	if ask {
		asked = map[dropKey]uint64{}
		d.sw.EachMissed(func(bridge, port string, n uint64) {
			asked[dropKey{bridge: bridge, port: port, reason: vswitch.DropMissed.String()}] = n
		})
		drops := d.endpointDrops()
		for i := range drops {
			asked[keyOf(&drops[i])] = drops[i].Count
		}
	}
	d.seen.ledger.look(time.Now(), counts, asked)
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
