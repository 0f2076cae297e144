package plug

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
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

// Want is a plug that shall be.
type Want struct {
	Port     string // name of the host's end
	Bridge   string
	Owner    string // cni: a runtime's; "" the operator's
	Plug     config.Plug
	Pools    []ipam.Pool  // of the bridge, at most one of each family
	Gateways []netip.Addr // of the bridge, for a plug that names none
	MTU      int          // bytes
	Alias    string       // of the interfaces

	// Others are addresses that neighbours on the bridge have by their own configuration.
	Others func(netip.Addr) bool
}

// owner is who has the leases of a plug: the container's name, not the port's.
func (w *Want) owner() string { return LeaseOwner(w.Plug.Container, w.Plug.IfName) }

// LeaseOwner is the owner of the leases of a plug.
func LeaseOwner(c config.ContainerRef, ifname string) string { return c.String() + " " + ifname }

// same says whether nothing changed that needs a look.
func (w *Want) same(o *Want) bool {
	return w.Port == o.Port && w.Bridge == o.Bridge && w.MTU == o.MTU && w.Alias == o.Alias && w.Owner == o.Owner &&
		slices.Equal(w.Gateways, o.Gateways) && slices.EqualFunc(w.Pools, o.Pools, samePool) && samePlug(w.Plug, o.Plug)
}

func samePool(a, b ipam.Pool) bool {
	return a.Name == b.Name && a.Subnet == b.Subnet && a.Range == b.Range && a.Gateway == b.Gateway &&
		slices.Equal(a.Exclude, b.Exclude) && slices.Equal(a.Own, b.Own)
}

func samePlug(a, b config.Plug) bool {
	return a.Container == b.Container && a.IfName == b.IfName && slices.Equal(a.Addresses, b.Addresses) && a.Auto4 == b.Auto4 && a.Auto6 == b.Auto6 &&
		slices.Equal(a.Gateways, b.Gateways) && a.NoGateway == b.NoGateway && slices.Equal(a.Routes, b.Routes) && slices.Equal(a.MAC, b.MAC) && a.MTU == b.MTU
}

// The states of a plug.
const (
	Plugged = "plugged"
	Waiting = "waiting" // for its container
	Failed  = "error"
	Going   = "going" // its container is gone; it goes after the grace time
)

// State is what became of a plug.
type State struct {
	State, Reason string
	Since         time.Time
	Addresses     []netip.Prefix
	Gateways      []netip.Addr
	MAC           net.HardwareAddr
	MTU           int
	NetNS, ID     string
	Names         []string // that the runtime knows the container by
}

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
	Plug(path string, s wire.Spec, had *wire.Spec) (wire.Plugged, error)
	Unplug(host, alias string) error
	Announce(path, ifname string) error
}

// Keeper keeps plugs.
//
// Thread-safety: safe for concurrent use. mu is never held over a call that leaves the
// process. One goroutine at a time looks at a plug.
type Keeper struct {
	o      Options
	rt     looker
	wires  wires
	leases *ipam.Store
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

func newKeeper(rt looker, w wires, leases *ipam.Store, past *Past, o Options) *Keeper {
	k := &Keeper{o: o, rt: rt, wires: w, leases: leases, past: past, tokens: map[string]chan struct{}{}, plugs: map[string]*kept{}}
	for _, kind := range []string{config.DockerContainer, config.PodmanContainer, ""} {
		k.tokens[kind] = make(chan struct{}, atOnce)
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// kernel is package wire with paths for open namespaces.
type kernel struct{}

func (kernel) Plug(path string, s wire.Spec, had *wire.Spec) (wire.Plugged, error) {
	ns, err := wire.Open(path)
	if err != nil {
		return wire.Plugged{}, err
	}
	defer ns.Close()
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

// giveBack frees what owner leased since it had had.
func (k *Keeper) giveBack(owner string, had []ipam.Lease) {
	for _, l := range k.leases.Of(owner) {
		if slices.Contains(had, l) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			k.o.Log.Warn("an address could not be given back", "address", l.Addr, "err", err)
		}
	}
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

// lookLocked has a plug looked at, by one goroutine at a time.
func (k *Keeper) lookLocked(p *kept) {
	if k.closed {
		return
	}
	if p.looking {
		p.again = true
		return
	}
	p.looking = true
	k.working.Go(func() { // ends when nothing changed while it looked
		for {
			k.look(k.ctx, p, nil)
			k.mu.Lock()
			if !p.again || k.closed {
				p.looking, p.asked = false, false
				p.done.Broadcast()
				k.mu.Unlock()
				return
			}
			p.again = false
			k.mu.Unlock()
		}
	})
}

// tokensOf are those that a look at p needs: who asks no runtime waits for none.
func (k *Keeper) tokensOf(p *kept, asks bool) chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.tokens[p.want.Plug.Container.Kind]; asks && p.wanted && t != nil {
		return t
	}
	return k.tokens[""]
}

// look brings one plug to where it should be; known is its container, or nil. It owns
// p.leased.
func (k *Keeper) look(ctx context.Context, p *kept, known *runtimes.Container) error {
	tokens := k.tokensOf(p, known == nil)
	select {
	case tokens <- struct{}{}:
		defer func() { <-tokens }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit) // who waits for others is not late
	defer cancel()
	k.mu.Lock()
	w, wanted := p.want, p.wanted
	k.mu.Unlock()
	if !wanted {
		return k.remove(p, w)
	}
	var c runtimes.Container
	var err error
	if known != nil {
		c = *known
	} else {
		c, err = k.rt.Look(ctx, w.Plug.Container)
	}
	name := w.Plug.Container.String()
	switch {
	case errors.Is(err, runtimes.ErrUnknown):
		return k.absent(p, err)
	case err != nil:
		return k.fail(p, w, "", err) // nobody knows: what is there stays
	case c.Host:
		return k.fail(p, w, c.NetNS, fmt.Errorf("%s uses the host's own network: nothing can be plugged into it", name))
	case !c.Running || c.NetNS == "":
		k.settle(p, w, State{State: Waiting, Reason: name + " does not run; it is plugged in when it starts", ID: c.ID, Names: c.Names}, nil)
		return nil
	}
	spec, err := k.spec(p, &w)
	if err == nil {
		var made wire.Plugged
		if made, err = k.wires.Plug(c.NetNS, spec, k.past.made(w.Port)); err == nil && made.Made {
			k.o.Log.Info("plugged in", "container", name, "bridge", w.Bridge, "port", w.Port, "ifname", spec.IfName, "addresses", spec.Addresses)
		}
	}
	if errors.Is(err, wire.ErrNoNamespace) {
		return k.fail(p, w, "none", fmt.Errorf("%s ended while it was plugged in", name))
	}
	if err != nil {
		return k.fail(p, w, c.NetNS, err)
	}
	k.past.make(w.Port, spec)
	if err := k.unlease(p, &w, &spec); err != nil {
		return k.fail(p, w, c.NetNS, err)
	}
	k.settle(p, w, State{
		State: Plugged, Addresses: spec.Addresses, Gateways: spec.Gateways, MAC: spec.MAC, MTU: spec.MTU, NetNS: c.NetNS, ID: c.ID, Names: c.Names,
	}, nil)
	return nil
}

// spec is what is to be made for w. Addresses are leased here, before anybody has them.
func (k *Keeper) spec(p *kept, w *Want) (wire.Spec, error) {
	g := w.Plug
	s := wire.Spec{Host: w.Port, Alias: w.Alias, IfName: g.IfName, MAC: g.MAC, MTU: w.MTU, Addresses: slices.Clone(g.Addresses)}
	if s.MAC == nil {
		s.MAC = k.mac(w)
	}
	for _, r := range g.Routes {
		s.Routes = append(s.Routes, wire.Route{Dst: r.Dst, Via: r.Via})
	}
	if err := k.lease(p, w, &s); err != nil {
		return s, err
	}
	switch {
	case g.NoGateway:
	case len(g.Gateways) > 0:
		s.Gateways = g.Gateways
	default:
		s.Soft = true
		for _, gw := range w.Gateways {
			on := func(a netip.Prefix) bool { return a.Masked().Contains(gw) && a.Addr() != gw }
			if slices.ContainsFunc(s.Addresses, on) {
				s.Gateways = append(s.Gateways, gw)
			}
		}
	}
	return s, nil
}

// lease adds the addresses of pools to s, and notes in the pools those given by hand. What
// the plug had stays leased until it has the new ones.
func (k *Keeper) lease(p *kept, w *Want, s *wire.Spec) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	g, owner := w.Plug, w.owner()
	use := func(at leasedAt) {
		if !slices.Contains(p.leased, at) {
			p.leased = append(p.leased, at)
		}
	}
	for _, pool := range w.Pools {
		v4 := pool.Subnet.Addr().Is4()
		at := leasedAt{pool.Name, owner}
		if v4 && g.Auto4 || !v4 && g.Auto6 {
			a, err := k.leases.Lease(pool, owner, w.Others)
			if err != nil {
				return err
			}
			s.Addresses = append(s.Addresses, netip.PrefixFrom(a, pool.Subnet.Bits()))
			use(at)
		}
		for _, a := range g.Addresses {
			if a.Addr().Is4() != v4 || !pool.Subnet.Contains(a.Addr()) {
				continue
			}
			if err := k.leases.Reserve(pool.Name, a.Addr(), owner); err != nil {
				return err
			}
			use(at)
		}
	}
	return nil
}

// unlease frees what a plug does not have any more, now that it has what s says.
func (k *Keeper) unlease(p *kept, w *Want, s *wire.Spec) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	owner := w.owner()
	has := func(l ipam.Lease) bool {
		return slices.ContainsFunc(w.Pools, func(q ipam.Pool) bool { return q.Name == l.Pool }) &&
			slices.ContainsFunc(s.Addresses, func(a netip.Prefix) bool { return a.Addr() == l.Addr })
	}
	var used []leasedAt
	for _, old := range p.leased {
		if old.owner != owner {
			if k.shared(p, old.owner) {
				continue
			}
			if err := k.leases.Release(old.pool, old.owner); err != nil {
				return err
			}
			k.past.forget(old.owner)
		}
	}
	for _, l := range k.leases.Of(owner) {
		if has(l) {
			if at := (leasedAt{l.Pool, owner}); !slices.Contains(used, at) {
				used = append(used, at)
			}
			continue
		}
		if k.shared(p, owner) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			return err
		}
	}
	p.leased = used
	return nil
}

// mac is the address of a container's interface that nobody chose: the same after each
// restart, so that what neighbours have in their ARP tables stays right.
func (k *Keeper) mac(w *Want) net.HardwareAddr {
	sum := sha256.Sum256([]byte(k.o.Instance + " " + w.owner()))
	m := net.HardwareAddr(sum[:6])
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m
}

// remove takes a plug away, with its leases.
func (k *Keeper) remove(p *kept, w Want) error {
	if err := k.wires.Unplug(w.Port, w.Alias); err != nil && !errors.Is(err, wire.ErrTaken) { // else it is not ours
		return k.fail(p, w, "", fmt.Errorf("unplug: %w", err))
	}
	owner := w.owner()
	held := p.leased
	for _, l := range k.leases.Of(owner) { // of an earlier run, too
		held = append(held, leasedAt{l.Pool, l.Owner})
	}
	if err := k.release(p, held); err != nil {
		return k.fail(p, w, "", err)
	}
	p.leased = nil
	k.past.unmake(w.Port)
	if !k.shared(p, owner) {
		k.past.forget(owner)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !p.wanted && k.plugs[w.Port] == p { // else it is wanted again: look goes on
		delete(k.plugs, w.Port)
	}
	return nil
}

func (k *Keeper) release(p *kept, held []leasedAt) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	for _, l := range held {
		if k.shared(p, l.owner) {
			continue
		}
		if err := k.leases.Release(l.pool, l.owner); err != nil {
			return err
		}
	}
	return nil
}

// shared says whether another plug that is wanted has the leases of owner: a plug that
// moved to another bridge, or got another port, keeps its name.
func (k *Keeper) shared(p *kept, owner string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.plugs {
		if other != p && other.wanted && other.want.owner() == owner {
			return true
		}
	}
	return false
}

// absent notes that a container is not there. One that never was is waited for: a document
// may name what is still to come.
func (k *Keeper) absent(p *kept, why error) error {
	k.mu.Lock()
	w := p.want
	k.mu.Unlock()
	seen := k.past.seen(w.owner()) // which may wait for the disk
	k.mu.Lock()
	if seen && p.gone.IsZero() {
		p.gone = time.Now()
	}
	k.mu.Unlock()
	st := State{State: Waiting, Reason: why.Error()}
	if seen {
		st.State, st.Reason = Going, fmt.Sprintf("%v: it is unplugged %s after it went", why, k.o.Grace)
	}
	k.settle(p, w, st, why)
	return why
}

// fail notes why a plug is not as it should be, and when to try again. What it has stays what
// it has while its namespace ns is the one that it was plugged into; "" is not known.
func (k *Keeper) fail(p *kept, w Want, ns string, err error) error {
	k.mu.Lock()
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
	p.due = time.Now().Add(p.backoff)
	st := p.state
	k.mu.Unlock()
	if errors.Is(err, runtimes.ErrNoAnswer) && st.State == Plugged {
		return err // it goes on as it is
	}
	failed := State{State: Failed, Reason: err.Error(), Names: st.Names, ID: st.ID}
	if ns == "" || ns == st.NetNS {
		failed.Addresses, failed.Gateways, failed.MAC, failed.MTU, failed.NetNS = st.Addresses, st.Gateways, st.MAC, st.MTU, st.NetNS
	}
	k.settle(p, w, failed, err)
	return err
}

// settle makes st the state of a plug, and tells when it is new.
func (k *Keeper) settle(p *kept, w Want, st State, err error) {
	k.mu.Lock()
	old := p.state
	st.Since = old.Since
	if old.State != st.State {
		st.Since = time.Now()
	}
	p.state = st
	if err == nil {
		p.backoff, p.due, p.gone = 0, time.Time{}, time.Time{}
	}
	if st.State == Plugged && p.up && !k.closed {
		k.announceLocked(p)
	}
	k.mu.Unlock()
	if err == nil {
		k.past.see(w.owner())
	}
	if old.State == st.State && old.Reason == st.Reason && slices.Equal(old.Addresses, st.Addresses) &&
		old.NetNS == st.NetNS && old.MTU == st.MTU && slices.Equal(old.Names, st.Names) {
		return
	}
	if st.State != Plugged && cmp.Or(old.Reason, old.State) != cmp.Or(st.Reason, st.State) {
		k.o.Log.Info("a plug is "+st.State, "port", w.Port, "reason", st.Reason)
	}
	k.o.Changed(w.Port)
}

// Collect frees the leases that no plug has: their daemon died between the lease and the
// plug, or while it unplugged. pools are those whose leases are the keeper's; keep says
// which owners stay though there is no plug.
func (k *Keeper) Collect(keep func(ipam.Lease) bool) {
	k.mu.Lock()
	owners := map[string]bool{}
	for _, p := range k.plugs {
		owners[p.want.owner()] = true
	}
	k.mu.Unlock()
	for _, l := range k.leases.Leases("") {
		if owners[l.Owner] || keep(l) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			k.o.Log.Warn("an address that nobody has could not be freed", "address", l.Addr, "err", err)
			continue
		}
		k.o.Log.Info("freed an address that nobody has any more", "pool", l.Pool, "address", l.Addr, "owner", l.Owner)
	}
}
