package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// EndpointConfig says what Open opens.
type EndpointConfig struct {
	Kind     Kind
	Local    netip.Addr // 0.0.0.0 and :: are any of that family
	Port     uint16     // UDP; 0 is the kind's default. GRE has none
	Queues   int        // workers that will send; UDP has a receive queue for each
	RxBuffer int        // bytes of receive buffer a queue; 0 is DefaultRxBuffer
}

// Endpoint is the local end of tunnels of one kind, address and UDP port: their
// sockets. It satisfies vswitch.Endpoint.
//
// Thread-safety: Recv is for the one worker that has the queue; all else may be
// called from anywhere, but Close only when nobody receives or sends any more.
type Endpoint struct {
	config EndpointConfig
	name   string
	claim  int // descriptor of the claim
	queues []*queue
	demux  demux
	space  uint64 // the network namespace, see endpoints
	// any is the endpoint without a local address, where this one has one.
	any atomic.Pointer[Endpoint]

	// senders are what the workers send with, by worker.
	senders atomic.Pointer[[]*sender]
	// sets are the sockets to send by, each made when a port first needs it.
	sets [numSets]atomic.Pointer[[]int]
	// gsoRefused counts ports for which the kernel refused UDP_SEGMENT.
	gsoRefused atomic.Uint64

	mu         sync.Mutex // for sets and senders to be made, and asker
	asker      int        // socket that asks for path MTUs; -1: none yet
	control    sync.Mutex // for WriteControl
	scratch    []byte     // of WriteControl
	controller int        // socket of WriteControl; -1: none yet
}

// Open opens an endpoint. Its errors say who or what is in the way.
func Open(c EndpointConfig) (*Endpoint, error) {
	c.Local = c.Local.Unmap()
	if c.Port == 0 {
		c.Port = c.Kind.DefaultPort()
	}
	c.Queues = max(c.Queues, 1)
	if c.RxBuffer == 0 {
		c.RxBuffer = DefaultRxBuffer
	}
	e := &Endpoint{config: c, name: c.name(), claim: -1, asker: -1, controller: -1}
	if err := e.open(); err != nil {
		e.Close()
		return nil, fmt.Errorf("open tunnel endpoint %s: %w", e.name, err)
	}
	return e, nil
}

func (c *EndpointConfig) name() string {
	if c.Kind == GRE {
		return c.Kind.String() + " " + c.Local.String()
	}
	return c.Kind.String() + " " + netip.AddrPortFrom(c.Local, c.Port).String()
}

// any is the same without a local address.
func (c EndpointConfig) any() EndpointConfig {
	if c.Local.Is4() {
		c.Local = netip.IPv4Unspecified()
	} else {
		c.Local = netip.IPv6Unspecified()
	}
	return c
}

// find returns the port of a remote address and a key, or nil.
func (e *Endpoint) find(r peer, key uint32) *Port {
	p := e.demux.find(r, key)
	if p == nil {
		if any := e.any.Load(); any != nil {
			p = any.demux.find(r, key)
		}
	}
	return p
}

func (e *Endpoint) open() (err error) {
	c := &e.config
	if c.Kind > Geneve {
		return fmt.Errorf("no such kind: %s", c.Kind)
	}
	if !c.Local.IsValid() {
		return errors.New("no local address")
	}
	if e.claim, err = claim(c); err != nil {
		return err
	}
	queues := c.Queues
	if c.Kind == GRE {
		queues = 1 // a second raw socket would get every packet again
	}
	for range queues {
		fd, err := e.openQueue()
		if err != nil {
			return explain(err, c)
		}
		q, err := newQueue(e, fd)
		if err != nil {
			unix.Close(fd)
			return err
		}
		e.queues = append(e.queues, q)
	}
	endpoints.add(e)
	e.growSenders(c.Queues)
	return nil
}

// openQueue opens a socket to receive by.
//
//   - UDP_GRO (Linux 5.0): trains of datagrams arrive as one message. A kernel
//     without it brings them one by one.
//   - IP_RECVTOS, IPV6_RECVTCLASS: the outer ECN field. A raw IPv4 socket brings
//     the whole IP header instead.
//   - UDP_NO_CHECK6_RX: RFC 6935 lets tunnels over IPv6 go without checksum.
func (e *Endpoint) openQueue() (int, error) {
	c := &e.config
	var options []option
	if c.Kind != GRE {
		options = append(options,
			option{name: "SO_REUSEPORT", level: unix.SOL_SOCKET, num: unix.SO_REUSEPORT, value: 1},
			option{name: "UDP_GRO", level: unix.SOL_UDP, num: unix.UDP_GRO, value: 1, optional: true})
	}
	switch {
	case c.Local.Is6():
		options = append(options, option{name: "IPV6_RECVTCLASS", level: unix.SOL_IPV6, num: unix.IPV6_RECVTCLASS, value: 1})
		if c.Kind == GRE {
			options = append(options, option{name: "IPV6_RECVPKTINFO", level: unix.SOL_IPV6, num: unix.IPV6_RECVPKTINFO, value: 1})
		} else {
			options = append(options, option{name: "UDP_NO_CHECK6_RX", level: unix.SOL_UDP, num: unix.UDP_NO_CHECK6_RX, value: 1, optional: true})
		}
	case c.Kind != GRE:
		options = append(options, option{name: "IP_RECVTOS", level: unix.SOL_IP, num: unix.IP_RECVTOS, value: 1})
	}
	fd, err := openSocket(c.Kind, c.Local, c.Port, options...)
	if err != nil {
		return -1, err
	}
	if err := setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, c.RxBuffer); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set receive buffer to %d bytes: %w", c.RxBuffer, err)
	}
	return fd, nil
}

// Name returns what tells the endpoint from others: "vxlan 0.0.0.0:4789",
// "gre 10.0.0.1".
func (e *Endpoint) Name() string { return e.name }

// Local returns the local address, 0.0.0.0 or :: for any.
func (e *Endpoint) Local() netip.Addr { return e.config.Local }

// Queues returns the number of receive queues.
func (e *Endpoint) Queues() int { return len(e.queues) }

// FD returns the descriptor of queue q, which polls readable when a frame waits.
func (e *Endpoint) FD(q int) int { return e.queues[q].fd }

// Missed returns how many datagrams the kernel dropped before they could be
// received: because the receive buffer was full, or, rarer, because the outer
// checksum was wrong (SK_MEMINFO_DROPS, Linux 4.12).
func (e *Endpoint) Missed() uint64 {
	var missed uint64
	for _, q := range e.queues {
		missed += q.missed()
	}
	return missed
}

// SegmentationRefused returns for how many ports the kernel, or the interface on
// their way, did not take UDP_SEGMENT: their segments are sent one by one.
func (e *Endpoint) SegmentationRefused() uint64 { return e.gsoRefused.Load() }

// Close closes the endpoint's sockets. Its ports are of no use afterwards.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	endpoints.remove(e)
	var first error
	shut := func(fd int) {
		if fd < 0 {
			return
		}
		if err := unix.Close(fd); err != nil && first == nil {
			first = err
		}
	}
	for _, q := range e.queues {
		shut(q.fd)
		q.unmap()
	}
	for i := range e.sets {
		if set := e.sets[i].Swap(nil); set != nil {
			for _, fd := range *set {
				shut(fd)
			}
		}
	}
	shut(e.asker)
	e.control.Lock()
	defer e.control.Unlock()
	shut(e.controller)
	e.controller = closed
	shut(e.claim) // last: now another daemon may have it
	e.asker, e.claim = -1, -1
	return first
}

// A set is sockets to send by, told apart by what is a socket's and not a
// message's: whether routers may fragment, and whether there is a UDP checksum.
const (
	setFragment = 1 << iota // IP_PMTUDISC_DONT, not IP_PMTUDISC_DO
	setNoCheck              // no UDP checksum
	numSets     = 1 << 2
)

// sourcePorts is how many sockets a set has: how many ways an underlay can spread
// one endpoint's flows. A power of two. GRE has one.
const sourcePorts = 16

// set returns the sockets of a set, which it opens if they are not.
func (e *Endpoint) set(which int) ([]int, error) {
	if set := e.sets[which].Load(); set != nil {
		return *set, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if set := e.sets[which].Load(); set != nil {
		return *set, nil
	}
	n := sourcePorts
	if e.config.Kind == GRE {
		n = 1
	}
	var set []int
	for range n {
		fd, err := e.openSender(which)
		if err != nil {
			for _, fd := range set {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("open socket to send by: %w", explain(err, &e.config))
		}
		set = append(set, fd)
	}
	e.sets[which].Store(&set)
	return set, nil
}

// openSender opens one socket to send by, at a port of the kernel's choosing.
func (e *Endpoint) openSender(which int) (int, error) {
	local := e.config.Local
	discover := unix.IP_PMTUDISC_DO
	if which&setFragment != 0 {
		discover = unix.IP_PMTUDISC_DONT
	}
	options := []option{{name: "IP_MTU_DISCOVER", level: unix.SOL_IP, num: unix.IP_MTU_DISCOVER, value: discover}}
	if local.Is6() {
		// The values are the same as IPv4's.
		options = []option{{name: "IPV6_MTU_DISCOVER", level: unix.SOL_IPV6, num: unix.IPV6_MTU_DISCOVER, value: discover}}
	}
	if local.Is6() && e.config.Kind == GRE {
		// Only then does a raw IPv6 socket that is not connected learn what ICMP says
		// of the path's MTU (rawv6_err).
		options = append(options, option{name: "IPV6_RECVERR", level: unix.SOL_IPV6, num: unix.IPV6_RECVERR, value: 1})
	}
	if which&setNoCheck != 0 {
		if local.Is6() {
			options = append(options, option{name: "UDP_NO_CHECK6_TX", level: unix.SOL_UDP, num: unix.UDP_NO_CHECK6_TX, value: 1})
		} else {
			options = append(options, option{name: "SO_NO_CHECK", level: unix.SOL_SOCKET, num: unix.SO_NO_CHECK, value: 1})
		}
	}
	fd, err := openSocket(e.config.Kind, local, 0, options...)
	if err != nil {
		return -1, err
	}
	if err := dropAll(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("attach filter: %w", err)
	}
	if err := setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, txBuffer); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set send buffer to %d bytes: %w", txBuffer, err)
	}
	return fd, nil
}

// closed is the controller of an endpoint that is closed: no other is opened.
const closed = -2

// controlPriority is TC_PRIO_INTERACTIVE, linux/pkt_sched.h: what pfifo_fast and
// others send first, and the highest that anybody may ask for (socket(7)).
const controlPriority = 6

// openController opens the socket that control frames are sent by, so that they find
// room when the data's sockets are full.
func (e *Endpoint) openController() (int, error) {
	fd, err := e.openSender(0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, controlPriority); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set SO_PRIORITY to %d: %w", controlPriority, err)
	}
	return fd, nil
}

// growSenders sees to it that there are senders for n workers.
func (e *Endpoint) growSenders(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*sender
	if old := e.senders.Load(); old != nil {
		all = *old
	}
	if len(all) >= n {
		return
	}
	grown := append([]*sender(nil), all...)
	for len(grown) < n {
		grown = append(grown, newSender(e.config.Local.Is6()))
	}
	e.senders.Store(&grown)
}
