package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/api"
	dnsnames "vswitch/plug/names"
	"vswitch/plug/nat"
	"vswitch/ports"
)

// gateways makes bridges gateways of their containers: nftables and DNS follow the
// document and the plugs. A goroutine each does it, since neither must hold up a change, nor
// the firewall, which may wait for iptables' lock, a name that goes with its container.
//
// Thread-safety: safe for concurrent use. Lock order: work, naming, mu.
type gateways struct {
	firewall *nat.Firewall
	dns      *dnsnames.Server
	log      *slog.Logger
	state    func() gatewayState
	wake     chan struct{} // holds one when something changed
	renamed  chan struct{} // likewise, for the names

	naming sync.Mutex // one at a time sets the names

	work   sync.Mutex     // one at a time applies
	used   bool           // there was something to apply; guarded by work, and so is what follows
	last   *gatewayState  // what was applied without an error; nil: nothing
	mtus   map[string]int // that were set, by interface
	closed bool

	mu        sync.Mutex // guards what follows; taken last
	published []api.PublishStatus
	err       string // why the firewall is not as it should be
}

// gatewayCheckEvery is how often it is looked whether somebody took rules away.
const gatewayCheckEvery = 5 * time.Second

func newGateways(instance, resolvConf string, log *slog.Logger, state func() gatewayState) *gateways {
	return &gateways{
		firewall: nat.New(instance, log), dns: dnsnames.New(resolvConf, log), log: log, state: state, mtus: map[string]int{},
		wake: make(chan struct{}, 1), renamed: make(chan struct{}, 1),
	}
}

func (g *gateways) kick() {
	for _, c := range []chan struct{}{g.renamed, g.wake} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (g *gateways) run(ctx context.Context) {
	tick := time.NewTicker(gatewayCheckEvery)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { g.watch(ctx, changed) }) // ended by ctx
	watching.Go(func() {                          // ended by ctx
		for {
			select {
			case <-ctx.Done():
				return
			case <-g.renamed:
				g.names()
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			g.check()
		case <-g.wake:
			g.apply()
		case <-tick.C:
			g.check()
		}
	}
}

// shield keeps what is masqueraded from tunnels' ends, where there is a gateway at all.
func (g *gateways) shield(peers []nat.Peer) error {
	if !g.used {
		return nil
	}
	return g.firewall.Shield(peers)
}

// fit gives gateways the MTU of their containers, which is what the bridge's tunnels carry: with
// its 1500 the host would send what no container takes, and never tell who sent it too much. An
// interface on a bridge without tunnels is left alone, or set back.
func (g *gateways) fit(mtus map[string]int) error {
	var errs []error
	for name, want := range mtus {
		link, err := net.InterfaceByName(name)
		was, set := g.mtus[name]
		if err != nil || want == kernelMTU && !set {
			continue // not there yet: the next look will do
		}
		if link.MTU != want {
			if err := ports.SetMTU(link.Index, want); err != nil {
				errs = append(errs, fmt.Errorf("set MTU of gateway %s to %d: %w", name, want, err))
				continue
			}
		}
		if g.mtus[name] = want; was != want {
			g.log.Info("gateway has the MTU of its containers", "interface", name, "mtu", want)
		}
		if want == kernelMTU {
			delete(g.mtus, name)
		}
	}
	for name, was := range g.mtus { // which are gateways no more
		if _, still := mtus[name]; still {
			continue
		}
		if link, err := net.InterfaceByName(name); err == nil && link.MTU == was {
			if err := ports.SetMTU(link.Index, kernelMTU); err != nil {
				errs = append(errs, fmt.Errorf("set MTU of %s back to %d: %w", name, kernelMTU, err))
				continue
			}
		}
		delete(g.mtus, name)
	}
	return errors.Join(errs...)
}

// watch tells when anybody changed nftables. Who changes rules of the older kind tells
// nobody, and a kernel may have no nftables: the ticks do then.
func (g *gateways) watch(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		err := g.firewall.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err == nil {
			return
		}
		g.log.Debug("changes of nftables are not told", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(gatewayCheckEvery):
		}
	}
}

// names makes the name server answer what there is now. What is asked for later is set later.
func (g *gateways) names() {
	g.naming.Lock()
	defer g.naming.Unlock()
	g.dns.Set(g.state().views)
}

// apply makes it so.
func (g *gateways) apply() {
	g.names()
	g.work.Lock()
	defer g.work.Unlock()
	if g.closed {
		return // what is made now would outlive the daemon
	}
	s := g.state()
	nothing := len(s.gateways)+len(s.forwards) == 0
	var status []nat.Status
	var err error
	if g.last != nil && g.last.same(&s) {
		status = g.firewall.Statuses()
	} else {
		status, err = g.firewall.Apply(s.gateways, s.forwards)
		if nothing && !g.used {
			err = nil // a kernel without nftables is no trouble to a switch that is no gateway
		}
		g.last = nil
		if err == nil {
			g.last = &s
		}
	}
	g.used = g.used || !nothing
	err = errors.Join(err, g.shield(s.peers), g.fit(s.mtus))
	for i := range s.rows {
		row, at := &s.rows[i], s.forward[i]
		switch {
		case at < 0:
		case err != nil:
			row.State, row.Reason = api.PortError, strings.ReplaceAll(err.Error(), "\n", "; ")
		case at < len(status) && status[at].Err != "":
			row.State, row.Reason = api.PortError, status[at].Err
		default:
			row.State = api.PortUp
		}
	}
	g.note(errors.Join(err, g.firewall.Blocked()))
	g.mu.Lock()
	g.published = s.rows
	g.mu.Unlock()
}

func (g *gateways) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != g.err {
		g.log.Error("gateways are not as they should be", "err", err)
	}
	g.err = text
}

// check puts back what somebody took away.
func (g *gateways) check() {
	g.work.Lock()
	defer g.work.Unlock()
	if !g.used {
		return
	}
	missing, err := g.firewall.Check()
	s := g.state()
	err = errors.Join(err, g.shield(s.peers), g.fit(s.mtus))
	if missing {
		g.log.Warn("somebody removed rules of the gateways; they are back")
	}
	g.note(err)
}

// warnings are for show.
func (g *gateways) warnings() (all []string) {
	g.mu.Lock()
	if g.err != "" {
		for text := range strings.SplitSeq(g.err, "\n") { // joined errors
			all = append(all, "gateways: "+text)
		}
	}
	g.mu.Unlock()
	for _, s := range g.dns.Status() {
		if s.Err != "" {
			all = append(all, "names of "+s.Bridge+": "+s.Err)
		}
	}
	return all
}

func (g *gateways) list() []api.PublishStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.published)
}

func (g *gateways) close() {
	g.work.Lock()
	defer g.work.Unlock()
	g.closed = true
	if err := g.firewall.Close(); err != nil {
		g.log.Warn("rules of the gateways were not removed", "err", err)
	}
	if err := g.dns.Close(); err != nil {
		g.log.Warn("the name server was not closed cleanly", "err", err)
	}
}
