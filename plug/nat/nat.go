// Package nat makes interfaces of the host gateways: forwarding, masquerading and published
// ports, by nftables in one table of our own. It knows no bridge and no container. It needs
// Linux 5.2, which has NAT in tables of both families.
//
// Its one idea: the kernel's rules are a page that is written anew as a whole. Apply
// composes the page from nothing but what it is given and replaces the old one in a single
// transaction, so that there is no moment without rules and no difference between a
// change, a repair and the first start. Connections live in conntrack, not in the page, and
// do not notice. What grows with the number of published ports are the page's maps, never
// its rules.
//
//	from a container          chain     what is decided
//	  │
//	  ▼ prerouting (raw)      guard     127.0.0.0/8 is for the host itself; no source is forged
//	  ▼ prerouting (dstnat)   arriving  to an address of the host: is the port published?
//	  ├─► input: the host itself; nothing is decided here
//	  ▼ forward (filter)      forward   who may talk to whom
//	  ▼ postrouting (srcnat)  leaving   whose address it has from here on
//	elsewhere
//
// What the host itself sends enters at output (dstnat), chain local, where published
// ports are looked up too.
//
// # What stays
//
// Forwarding is a property of the whole host. It is switched on when a gateway needs it and
// never switched off again: by then others may count on it. It lets the host forward for
// everybody, as it does on any router; a Docker before version 28 that starts later finds it on,
// and leaves the policy of FORWARD alone. What is a danger without our rules (route_localnet)
// is taken back before them.
package nat

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Gateway is an interface of the host that is the gateway of its subnets. One that neither
// masquerades nor is internal is routed: whoever knows the way reaches its containers, those
// of other gateways too, since nothing keeps anybody else away.
type Gateway struct {
	Interface  string
	Subnets    []netip.Prefix // masked
	Masquerade bool           // what leaves for elsewhere has the host's address; nothing new comes in but what is published
	Internal   bool           // nothing goes from here to elsewhere, nor comes from there
	Uplink     bool           // a LAN is behind it, too: others' way out, where routers and strangers are
	Stub       bool           // nobody is behind it but containers, though it may be routed
	Names      bool           // the host answers questions for names there, at port 53
}

// closed says that nobody is behind the gateway but its containers: no router, and nobody
// whom the host would know by another interface. Of one that routes this is known only where
// somebody says so.
func (g Gateway) closed() bool { return (g.Masquerade || g.Internal || g.Stub) && !g.Uplink }

// Forward is a port of the host that leads to a container.
type Forward struct {
	Host      netip.Addr // the zero Addr: any address of the host
	Port      uint16
	Proto     string // tcp, udp
	To        netip.AddrPort
	Interface string // the gateway behind which To is
}

// Status is what became of a Forward.
type Status struct {
	Forward
	Err string // why the port is not reachable; "" it is
}

// Peer is the far end of a tunnel of the host's. Tunnels know each other by address alone, and
// what is masqueraded has the host's: no container may speak to it as a tunnel does.
type Peer struct {
	Addr netip.Addr
	Port uint16 // of UDP; 0: GRE
}

// Bounds.
const (
	maxGateways = 1024
	maxForwards = 1 << 14 // each holds a file descriptor
	maxPeers    = 1 << 14
)

// ErrBlocked says that a firewall of the host's own drops what gateways forward, or questions for
// names.
var ErrBlocked = errors.New("the host's firewall drops")

// Firewall is the table.
//
// Thread-safety: safe for concurrent use.
type Firewall struct {
	name string // of the table, and the comment on rules elsewhere
	log  *slog.Logger

	mu       sync.Mutex // guards what follows
	gateways []Gateway  // what Apply was last asked for
	forwards []Forward
	peers    []Peer // sorted, none twice
	status   []Status
	page     *page               // what the table shall be; nil: nothing, or not known
	serving  map[claimKey]target // what is to be published, and is claimed
	led      map[claimKey]target // where conntrack's flows lead, by what it was last told
	claims   map[claimKey]int    // a bound socket each
	localnet []localnet          // what we opened to loopback addresses
	gen      uint32              // nftables' generation at which all was well
	genKnown bool
	clean    bool       // nothing of ours is anywhere
	tookOver bool       // a killed process's leavings have been looked at
	blocked  []obstacle // what a foreign firewall drops
}

// New makes nothing yet. The instance tells this daemon's table from others'. A table that a
// killed process left is replaced by the first Apply.
func New(instance string, log *slog.Logger) *Firewall {
	return &Firewall{
		name: "vswitch-" + instance[:min(8, len(instance))], log: log,
		claims: map[claimKey]int{},
	}
}

// Apply makes the table say exactly this, in one transaction; nothing at all removes it.
// Other tables are not touched, but for Docker's own chain for users' rules, DOCKER-USER,
// where it exists: Docker's FORWARD policy drops what nobody accepts. The statuses are
// in the order of forwards.
func (f *Firewall) Apply(gateways []Gateway, forwards []Forward) ([]Status, error) {
	if len(gateways) > maxGateways {
		return nil, fmt.Errorf("%d gateways are more than the %d there may be", len(gateways), maxGateways)
	}
	if len(forwards) > maxForwards {
		return nil, fmt.Errorf("%d published ports are more than the %d there may be", len(forwards), maxForwards)
	}
	if err := checkGateways(gateways); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gateways, f.forwards = slices.Clone(gateways), slices.Clone(forwards)
	for i := range f.gateways {
		f.gateways[i].Subnets = slices.Clone(f.gateways[i].Subnets)
	}
	err := f.applyLocked()
	return f.statusLocked(), err
}

// Shield makes these the tunnels' ends that no container can speak to, at once where there are
// gateways. The same again costs nothing.
func (f *Firewall) Shield(peers []Peer) error {
	if len(peers) > maxPeers {
		return fmt.Errorf("%d ends of tunnels are more than the %d there may be", len(peers), maxPeers)
	}
	peers = slices.Clone(peers)
	for i := range peers {
		peers[i].Addr = peers[i].Addr.Unmap().WithZone("")
	}
	peers = slices.DeleteFunc(peers, func(p Peer) bool { return !p.Addr.IsValid() })
	slices.SortFunc(peers, func(p, q Peer) int { return cmp.Or(p.Addr.Compare(q.Addr), cmp.Compare(p.Port, q.Port)) })
	peers = slices.Compact(peers)
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(peers, f.peers) {
		return nil
	}
	f.peers = peers
	if len(f.gateways) == 0 {
		return nil
	}
	return f.applyLocked()
}

// Statuses are those of the last Apply, or newer: Check tries again to have ports that
// somebody else had.
func (f *Firewall) Statuses() []Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.statusLocked()
}

func (f *Firewall) applyLocked() error {
	f.genKnown = false
	f.claimLocked()
	if len(f.gateways) == 0 {
		var err error
		if !f.clean {
			err = f.removeLocked()
			f.clean = err == nil
		}
		f.forgetLocked()
		return err
	}
	f.clean = false
	// What is not known of others keeps nothing of ours from being done.
	others, unknown := lookAround(f.name)
	docker := others.dockerBridges()
	if unknown != nil {
		unknown = fmt.Errorf("read the host's firewall: %w", unknown)
		if f.page != nil {
			docker = f.page.docker
		}
	}
	if err := enableForwarding(f.gateways); err != nil {
		return err
	}
	if err := hearNoRouters(f.gateways); err != nil {
		return err
	}
	if err := f.takeOverLocked(); err != nil {
		return err
	}
	// What the guard guards is opened after it came, and closed before it goes.
	localnet := wantsLocalnet(f.serving)
	if err := f.dropLocalnetLocked(localnet); err != nil {
		return err
	}
	p := compose(f.name, f.gateways, f.serving, f.peers, docker)
	if err := p.write(); err != nil {
		f.page = nil
		return fmt.Errorf("write nftables table %s: %w", f.name, err)
	}
	f.page = p
	if err := f.addLocalnetLocked(localnet); err != nil {
		return err
	}
	f.forgetLocked()
	f.blocked = others.obstacles(f.gateways)
	return errors.Join(unknown, others.accept(f.name, f.gateways))
}

// removeLocked takes back all but the claims.
func (f *Firewall) removeLocked() error {
	f.blocked = nil
	if err := f.takeOverLocked(); err != nil {
		return err
	}
	if err := f.dropLocalnetLocked(nil); err != nil {
		return err
	}
	if err := removeTable(f.name); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", f.name, err)
	}
	f.page = nil
	others, err := lookAround(f.name)
	if err != nil {
		err = fmt.Errorf("read the host's firewall: %w", err)
	}
	return errors.Join(err, others.accept(f.name, nil))
}

// takeOverLocked learns from the table of a killed process what that had opened, and where
// conntrack leads the flows of what it published.
func (f *Firewall) takeOverLocked() error {
	if f.tookOver {
		return nil
	}
	names, err := elements(f.name, setGateways)
	if err != nil {
		return fmt.Errorf("read nftables table %s: %w", f.name, err)
	}
	for _, e := range names {
		for _, l := range []localnet{{ifname(e.Key), false}, {ifname(e.Key), true}} {
			if open, _ := l.isOpen(); open {
				f.localnet = append(f.localnet, l)
			}
		}
	}
	for _, set := range []string{setPublished4, setPublished4 + setPublishedAt, setPublished6, setPublished6 + setPublishedAt} {
		published, err := elements(f.name, set)
		if err != nil {
			return fmt.Errorf("read nftables table %s: %w", f.name, err)
		}
		for _, e := range published {
			if k, t, ok := readPublished(e, strings.HasPrefix(set, setPublished6)); ok {
				if f.led == nil {
					f.led = map[claimKey]target{}
				}
				f.led[k] = t
			}
		}
	}
	f.tookOver = true
	return nil
}

// statusLocked is what became of the forwards, and what a foreign firewall does to them.
func (f *Firewall) statusLocked() []Status {
	all := slices.Clone(f.status)
	for i := range all {
		at := slices.IndexFunc(f.blocked, func(o obstacle) bool { return o.ifname == all[i].Interface && o.published })
		if at >= 0 && all[i].Err == "" {
			all[i].Err = f.blocked[at].err.Error()
		}
	}
	return all
}

// Blocked is what foreign firewalls drop as far as is known: ErrBlocked, or nil.
func (f *Firewall) Blocked() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blockedLocked()
}

func (f *Firewall) blockedLocked() error {
	var all []error
	for _, o := range f.blocked {
		all = append(all, o.err)
	}
	return errors.Join(all...)
}

// Check puts back what somebody took away (the table was flushed, Docker was restarted and made
// its chain anew), and says whether something was missing. It tries again to have ports
// that were in use: see Statuses. The error is ErrBlocked where all is well with us, but not
// with the host's firewall; it says what to allow.
func (f *Firewall) Check() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.gateways) == 0 {
		return false, nil
	}
	if f.couldClaimLocked() {
		return false, errors.Join(f.applyLocked(), f.blockedLocked())
	}
	missing, err := f.missingLocked()
	if err != nil {
		return false, err
	}
	if missing {
		err = f.applyLocked()
	}
	return missing, errors.Join(err, f.blockedLocked())
}

// missingLocked says whether anything differs from what the last Apply left.
func (f *Firewall) missingLocked() (bool, error) {
	if f.page == nil || !forwardingEnabled(f.gateways) || hearsRouters(f.gateways) || !f.localnetOpenLocked() {
		return true, nil
	}
	gen, err := generation()
	if err != nil {
		return false, fmt.Errorf("read nftables' generation: %w", err)
	}
	if f.genKnown && gen == f.gen && !legacyTables() {
		return false, nil // nobody changed anything of nftables since
	}
	same, err := f.page.isThere()
	if err != nil {
		return false, fmt.Errorf("read nftables table %s: %w", f.name, err)
	}
	others, err := lookAround(f.name)
	if err != nil {
		return false, fmt.Errorf("read the host's firewall: %w", err)
	}
	if !same || !others.accepted(f.name, f.gateways) {
		return true, nil
	}
	if !slices.Equal(others.dockerBridges(), f.page.docker) {
		return false, f.applyLocked() // not missing: Docker has another network
	}
	f.blocked = others.obstacles(f.gateways)
	f.gen, f.genKnown = gen, true
	return false, nil
}

// Close removes the table and what else was put anywhere.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gateways, f.forwards = nil, nil
	return f.applyLocked()
}

// checkGateways refuses what rules and sysctls would take for something else.
func checkGateways(gateways []Gateway) error {
	seen := map[string]bool{}
	for _, g := range gateways {
		n := g.Interface
		if n == "" || len(n) >= unix.IFNAMSIZ || n == "." || n == ".." || n == "all" || n == "default" || n[0] == '-' || strings.ContainsAny(n, "/+*!\"'\\ \t\n\v\f\r\x00") {
			return fmt.Errorf("%q cannot be a gateway's interface", n)
		}
		if seen[n] {
			return fmt.Errorf("gateway %s is given twice", n)
		}
		seen[n] = true
		for _, s := range g.Subnets {
			if !s.IsValid() || s.Addr().Is4In6() || s != s.Masked() {
				return fmt.Errorf("gateway %s: %v is not a subnet", n, s)
			}
		}
	}
	return nil
}

// open is a connection to nftables that takes large transactions.
func open() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(largeBuffers))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}
