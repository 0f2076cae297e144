package nat

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// claimKey is a port of the host that is published. The family is that of the container's
// address; a port of both families is two keys.
type claimKey struct {
	v6    bool
	host  netip.Addr // the zero Addr: any
	port  uint16
	proto uint8
}

// target is where a published port leads.
type target struct {
	to  netip.AddrPort
	via string // the gateway's interface
}

func (k claimKey) String() string {
	proto := "tcp"
	if k.proto == unix.IPPROTO_UDP {
		proto = "udp"
	}
	if k.host.IsValid() {
		return fmt.Sprintf("port %d/%s of %s", k.port, proto, k.host)
	}
	return fmt.Sprintf("port %d/%s of the host", k.port, proto)
}

// overlaps says whether both want the same port of the host.
func (k claimKey) overlaps(l claimKey) bool {
	return k.v6 == l.v6 && k.port == l.port && k.proto == l.proto && (!k.host.IsValid() || !l.host.IsValid() || k.host == l.host)
}

// read turns a forward into its key, or says why it cannot be.
func (w Forward) read(gateways []Gateway) (k claimKey, t target, why string) {
	to := netip.AddrPortFrom(w.To.Addr().Unmap(), w.To.Port())
	host := w.Host.Unmap()
	if host.IsValid() && host.IsUnspecified() {
		host = netip.Addr{}
	}
	k = claimKey{v6: to.Addr().Is6(), host: host, port: w.Port}
	switch w.Proto {
	case "tcp":
		k.proto = unix.IPPROTO_TCP
	case "udp":
		k.proto = unix.IPPROTO_UDP
	default:
		return k, t, fmt.Sprintf("protocol %q cannot be published", w.Proto)
	}
	i := slices.IndexFunc(gateways, func(g Gateway) bool { return g.Interface == w.Interface })
	switch {
	case w.Port == 0 || to.Port() == 0 || !to.IsValid():
		return k, t, "a port or an address is missing"
	case i < 0:
		return k, t, fmt.Sprintf("%s is not a gateway", w.Interface)
	case gateways[i].Internal:
		return k, t, fmt.Sprintf("%s is internal: nothing comes in from elsewhere", w.Interface)
	case host.IsValid() && host.Is4() != to.Addr().Is4():
		return k, t, fmt.Sprintf("the container's address %s is of another family than %s", to.Addr(), host)
	}
	return k, target{to, w.Interface}, ""
}

// claimLocked binds a socket on each port that is to be published, gives back those that are
// not any more, and notes what came of it in serving and status. Who serves a port already
// keeps it.
func (f *Firewall) claimLocked() {
	f.status = make([]Status, len(f.forwards))
	keys := make([]claimKey, len(f.forwards))
	targets := make([]target, len(f.forwards))
	var order []int
	for i, w := range f.forwards {
		f.status[i].Forward = w
		keys[i], targets[i], f.status[i].Err = w.read(f.gateways)
		if f.status[i].Err == "" {
			order = append(order, i)
		}
	}
	isServed := func(i int) int {
		if f.serving[keys[i]] == targets[i] {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(isServed(a), isServed(b)) })

	type portOf struct {
		v6    bool
		port  uint16
		proto uint8
	}
	taken := map[portOf][]claimKey{}
	next := map[claimKey]target{}
	for _, i := range order {
		k, same := keys[i], portOf{keys[i].v6, keys[i].port, keys[i].proto}
		if j := slices.IndexFunc(taken[same], k.overlaps); j >= 0 {
			f.status[i].Err = fmt.Sprintf("%s is published to %s already", k, next[taken[same][j]].to)
			if next[taken[same][j]] == targets[i] {
				f.status[i].Err = fmt.Sprintf("%s is published twice", k)
			}
			continue
		}
		taken[same] = append(taken[same], k)
		next[k] = targets[i]
	}
	for k, fd := range f.claims {
		if _, ok := next[k]; !ok {
			unix.Close(fd)
			delete(f.claims, k)
		}
	}
	inUse := map[int]claimKey{}
	for _, i := range order {
		k := keys[i]
		if f.status[i].Err != "" {
			continue
		}
		if _, ok := f.claims[k]; ok {
			continue
		}
		fd, err := claim(k)
		if err != nil {
			f.status[i].Err = err.Error()
			delete(next, k)
			if errors.Is(err, unix.EADDRINUSE) {
				inUse[i] = k
			}
			continue
		}
		f.claims[k] = fd
	}
	f.serving = next
	f.nameHolders(inUse, holderLimit)
}

// couldClaimLocked says whether a port can be had now that could not be before.
func (f *Firewall) couldClaimLocked() bool {
	for _, s := range f.status {
		if s.Err == "" {
			continue
		}
		k, _, why := s.Forward.read(f.gateways)
		if _, ok := f.claims[k]; why != "" || ok {
			continue
		}
		for other := range f.claims {
			if k.overlaps(other) {
				why = "ours"
				break
			}
		}
		if why != "" {
			continue
		}
		if fd, err := claim(k); err == nil {
			unix.Close(fd)
			return true
		}
	}
	return false
}

// claim binds a socket, so that nobody else can take the port unawares, and it is no
// source port of the host's own connections. It never listens: what the rules do not
// translate is refused.
func claim(k claimKey) (int, error) {
	fd, err := bind(k)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return -1, fmt.Errorf("%s is in use: %w", k, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return -1, fmt.Errorf("%s cannot be had: the host has no such address: %w", k, err)
	case err != nil:
		return -1, fmt.Errorf("%s cannot be had: %w", k, err)
	}
	return fd, nil
}

func bind(k claimKey) (fd int, err error) {
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if k.v6 {
		family = unix.AF_INET6
	}
	if k.proto == unix.IPPROTO_UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if typ == unix.SOCK_DGRAM {
		// Nobody reads; as little as may be is kept.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
			return fd, fmt.Errorf("setsockopt SO_RCVBUF: %w", err)
		}
	}
	var addr unix.Sockaddr
	if k.v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, fmt.Errorf("setsockopt IPV6_V6ONLY: %w", err)
		}
		a := &unix.SockaddrInet6{Port: int(k.port)}
		if k.host.IsValid() {
			a.Addr = k.host.As16()
		}
		addr = a
	} else {
		a := &unix.SockaddrInet4{Port: int(k.port)}
		if k.host.IsValid() {
			a.Addr = k.host.As4()
		}
		addr = a
	}
	if err := unix.Bind(fd, addr); err != nil {
		return fd, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}
