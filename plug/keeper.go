package plug

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/ipam"
	"vswitch/plug/runtimes"
	"vswitch/plug/wire"
)

// Bounds of the keeper's work.
const (
	atOnce     = 8                // plugs that are looked at at a time: a runtime that hangs holds up its own
	minBackoff = time.Second      // between tries of a plug that failed
	maxBackoff = 30 * time.Second //
	lookLimit  = 10 * time.Second // for one look at one plug
	tickEvery  = 250 * time.Millisecond
	quietEvery = 5 * time.Millisecond

	// Neighbours hear of an address when the port is up, and again, since the first
	// frames may find a tunnel on its way up.
	announceAgain = 700 * time.Millisecond
)

// DefaultGrace is how long a plug outlives its container: who removes a container to make
// it anew, as docker compose does, finds its addresses again.
const DefaultGrace = time.Minute

// Hooks are called without a lock, from any goroutine.
type Hooks struct {
	Changed func(port string) // its state, addresses or names did
	Gone    func([]Passing)   // containers are gone for longer than the grace time
}

// Options of a keeper.
type Options struct {
	Instance string // of the daemon: what MAC addresses are made from
	Grace    time.Duration
	Log      *slog.Logger
	Hooks
}

// looker is *runtimes.Runtimes.
type looker interface {
	Look(ctx context.Context, ref config.ContainerRef) (runtimes.Container, error)
}

// wires is package wire.
type wires interface {
	// Plug asks still when the namespace at path is open: whether it is the container's.
	Plug(path string, still func() bool, s wire.Spec, had *wire.Spec) (wire.Plugged, error)
	Unplug(host, alias string) error
	Announce(path, ifname string) error
}

// leaser is *ipam.Store.
type leaser interface {
	Lease(pool ipam.Pool, owner string, taken func(netip.Addr) bool) (netip.Addr, error)
	Reserve(pool string, addr netip.Addr, owner string) error
	Release(pool, owner string) error
	ReleaseAddr(pool string, addr netip.Addr) error
	Of(owner string) []ipam.Lease
	Leases(pool string) []ipam.Lease
}

// Keeper keeps plugs.
//
// Thread-safety: safe for concurrent use. mu is never held over a call that leaves the
// process. One goroutine at a time looks at a plug.
type Keeper struct {
	o      Options
	rt     looker
	wires  wires
	leases leaser
	past   *Past
	tokens map[string]chan struct{} // by kind of container: a runtime that hangs holds up its own

	ctx     context.Context // ends all work
	cancel  context.CancelFunc
	working sync.WaitGroup

	leasing sync.Mutex // who shares an owner does not lease while the other releases; taken before mu

	mu     sync.Mutex
	plugs  map[string]*kept
	closed bool
}

// kept is one plug.
type kept struct {
	promised bool // Now made it, and no Set has had it yet
	want     Want
	wanted   bool // else it is to go
	state    State
	looking  bool // a goroutine is at it
	asked    bool // since a Set wanted something of it
	again    bool // look once more when it is done
	up       bool // its port forwards, which neighbours were not told yet
	done     *sync.Cond

	leased  []leasedAt    // to be released with the plug
	gone    time.Time     // since when it is not; zero: it is
	backoff time.Duration // after a failure
	due     time.Time     // of the next try; zero: none
}

type leasedAt struct{ pool, owner string }

// New makes a keeper of nothing.
func New(rt *runtimes.Runtimes, leases *ipam.Store, past *Past, o Options) *Keeper {
	return newKeeper(rt, kernel{}, leases, past, o)
}

func newKeeper(rt looker, w wires, leases leaser, past *Past, o Options) *Keeper {
	k := &Keeper{o: o, rt: rt, wires: w, leases: leases, past: past, tokens: map[string]chan struct{}{}, plugs: map[string]*kept{}}
	for _, kind := range []string{config.DockerContainer, config.PodmanContainer, ""} {
		k.tokens[kind] = make(chan struct{}, atOnce)
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// kernel is package wire with paths for open namespaces.
type kernel struct{}

func (kernel) Plug(path string, still func() bool, s wire.Spec, had *wire.Spec) (wire.Plugged, error) {
	ns, err := wire.Open(path)
	if err != nil {
		return wire.Plugged{}, err
	}
	defer ns.Close()
	if !still() {
		return wire.Plugged{}, fmt.Errorf("%s is another process's: %w", path, wire.ErrNoNamespace)
	}
	return wire.Plug(ns, s, had)
}

func (kernel) Unplug(host, alias string) error { return wire.Unplug(host, alias) }

func (kernel) Announce(path, ifname string) error {
	ns, err := wire.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return wire.Announce(ns, ifname)
}

// Close ends all work. Pairs stay: containers go on when the switch comes back.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.working.Wait()
}

// Run looks at plugs whose time has come, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			k.tick(now)
		}
	}
}

// Passing is a plug whose container is gone for longer than the grace time.
type Passing struct {
	Port      string
	Container config.ContainerRef
}

func (k *Keeper) tick(now time.Time) {
	var gone []Passing
	k.mu.Lock()
	defer k.mu.Unlock()
	for port, p := range k.plugs {
		if p.wanted && !p.gone.IsZero() && now.Sub(p.gone) >= k.o.Grace {
			p.gone = now // told again after another grace time, should it stay
			gone = append(gone, Passing{port, p.want.Plug.Container})
		}
		if !p.due.IsZero() && now.After(p.due) {
			p.due = time.Time{}
			k.lookLocked(p)
		}
	}
	if len(gone) > 0 && !k.closed {
		k.working.Go(func() { k.o.Gone(gone) }) // ends with the change of the document that it asks for
	}
}

// Set makes these the plugs that are wanted. What is new or changed is looked at, what is
// not wanted any more is unplugged and its addresses freed; neither is waited for.
func (k *Keeper) Set(wants []Want) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	want := make(map[string]bool, len(wants))
	for i := range wants {
		w := &wants[i]
		want[w.Port] = true
		p := k.plugs[w.Port]
		if p == nil {
			p = k.addLocked(*w)
			p.asked = true
			k.lookLocked(p)
			continue
		}
		same := p.wanted && p.want.same(w)
		if p.want.Plug.Container != w.Plug.Container {
			p.gone = time.Time{}
		}
		p.want, p.wanted, p.promised = *w, true, false
		if !same {
			p.backoff, p.asked = 0, true
			k.lookLocked(p)
		}
	}
	for port, p := range k.plugs {
		if !want[port] && p.wanted && !p.promised {
			p.wanted, p.asked = false, true
			k.lookLocked(p)
		}
	}
}

func (k *Keeper) addLocked(w Want) *kept {
	p := &kept{want: w, wanted: true, state: State{State: Waiting, Reason: w.Plug.Container.String() + " is being looked for", Since: time.Now()}}
	p.done = sync.NewCond(&k.mu)
	k.plugs[w.Port] = p
	return p
}

// Now plugs w at once and says what became of it. An error leaves nothing: no pair, no
// lease, no plug. A plug of that port that is there is changed, and stays as it was when
// that fails. c is the container where the caller has just looked: who holds a lock must
// not wait for a runtime, which may wait for him. nil: it is looked at.
func (k *Keeper) Now(ctx context.Context, w Want, c *runtimes.Container) (State, error) {
	k.mu.Lock()
	p := k.plugs[w.Port]
	for p != nil && p.looking {
		p.done.Wait()
		p = k.plugs[w.Port] // it may have gone meanwhile
	}
	fresh := p == nil
	if fresh {
		p = k.addLocked(w)
	}
	was, wasWanted := p.want, p.wanted
	p.want, p.wanted, p.looking = w, true, true
	p.promised = p.promised || fresh || !wasWanted
	if !wasWanted {
		p.gone = time.Time{}
	}
	k.mu.Unlock()

	had := k.leases.Of(w.owner())
	err := k.look(ctx, p, c)
	if err != nil {
		k.giveBack(w.owner(), had)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	st := p.state
	p.looking = false
	p.done.Broadcast()
	if err == nil {
		return st, nil
	}
	p.promised = false
	if fresh {
		p.wanted = false
	} else {
		p.want, p.wanted = was, wasWanted
	}
	p.due = time.Time{}
	k.lookLocked(p) // takes back what there is
	for p.looking {
		p.done.Wait()
	}
	return st, err
}

// Forget unplugs a port at once and waits for it: what a plug that could not be stored
// is followed by.
func (k *Keeper) Forget(port string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.plugs[port]
	if p == nil {
		return
	}
	p.wanted, p.promised = false, false
	k.lookLocked(p)
	for p.looking && k.plugs[port] == p {
		p.done.Wait()
	}
}

// Quiet waits until what Set asked for is done, for limit at most, and reports whether there
// was anything to wait for.
func (k *Keeper) Quiet(limit time.Duration) (waited bool) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(quietEvery) {
		k.mu.Lock()
		busy := false
		for _, p := range k.plugs {
			busy = busy || p.looking && p.asked
		}
		k.mu.Unlock()
		if !busy {
			return waited
		}
		waited = true
	}
	return waited
}

// Look looks at a port's plug: something happened to its interface.
func (k *Keeper) Look(port string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.plugs[port]; p != nil && p.wanted {
		k.lookLocked(p)
	}
}

// LookAt looks at the plugs of a container; the zero ref is all.
func (k *Keeper) LookAt(ref config.ContainerRef) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.plugs {
		if p.wanted && (ref == config.ContainerRef{} || p.want.Plug.Container == ref) {
			p.backoff = 0
			k.lookLocked(p)
		}
	}
}

// Wanted lists the containers that anybody wants, each once.
func (k *Keeper) Wanted() []config.ContainerRef {
	k.mu.Lock()
	defer k.mu.Unlock()
	refs := map[config.ContainerRef]bool{}
	for _, p := range k.plugs {
		if p.wanted {
			refs[p.want.Plug.Container] = true
		}
	}
	return slices.Collect(maps.Keys(refs))
}

// Up tells that a port forwards: neighbours may be told of its addresses.
func (k *Keeper) Up(port string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.plugs[port]
	if p == nil || k.closed {
		return
	}
	if p.state.State != Plugged { // after a start, the port is there before it was looked at
		p.up = true
		return
	}
	k.announceLocked(p)
}

// announceLocked tells a container's neighbours of its addresses, twice.
func (k *Keeper) announceLocked(p *kept) {
	p.up = false
	port, ns, ifname := p.want.Port, p.state.NetNS, p.want.Plug.IfName
	k.working.Go(func() { // ends after the second announcement, or with ctx
		for wait := time.Duration(0); ; wait = announceAgain {
			select {
			case <-k.ctx.Done():
				return
			case <-time.After(wait):
			}
			if err := k.wires.Announce(ns, ifname); err != nil {
				k.o.Log.Debug("addresses were not announced", "port", port, "err", err)
				return
			}
			if wait > 0 {
				return
			}
		}
	})
}

// State says what became of a port's plug.
func (k *Keeper) State(port string) (State, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.plugs[port]
	if p == nil || !p.wanted {
		return State{}, false
	}
	return p.state, true
}
