package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sizes of socket buffers in bytes, asked for past the system's limit where the
// process may (CAP_NET_ADMIN).
const (
	// DefaultRxBuffer is EndpointConfig.RxBuffer where that is 0: as a packet
	// socket's, some sixty trains of 64 KiB or some 5,000 small frames.
	DefaultRxBuffer = 4 << 20
	txBuffer        = 4 << 20
)

// option is a socket option that is an int.
type option struct {
	name              string
	level, num, value int
	optional          bool // a kernel may not have it
}

// family returns the address family of a.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// openSocket opens a socket of the kind of local's family, sets its options, and
// binds it to local and port. The options of only one family are the caller's to
// choose.
func openSocket(kind Kind, local netip.Addr, port uint16, options ...option) (fd int, err error) {
	typ, proto := unix.SOCK_DGRAM, 0
	if kind == GRE {
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_GRE
	}
	fd, err = unix.Socket(family(local), typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if local.Is6() {
		options = append(options, option{name: "IPV6_V6ONLY", level: unix.SOL_IPV6, num: unix.IPV6_V6ONLY, value: 1, optional: kind == GRE})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.num, o.value); err != nil && !o.optional {
			return fd, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	if kind == GRE && local.IsUnspecified() {
		return fd, nil
	}
	return fd, unix.Bind(fd, sockaddr(local, port))
}

// setBuffer sets a socket buffer past the system's limit where it may, and as far
// as the limit lets it where not.
func setBuffer(fd, force, plain, bytes int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes)
}

// dropAll makes a socket drop what is sent to it, before it is queued: a classic
// BPF filter that returns 0.
func dropAll(fd int) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
		Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	})
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: a.As16(), ZoneId: zoneID(a.Zone())}
}

// zoneID returns the index of an IPv6 zone, 0 if there is no such interface.
func zoneID(zone string) uint32 {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if zone == "" {
		return 0
	}
	ifr, err := unix.NewIfreq(zone)
	if err != nil {
		return 0
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) != nil {
		return 0
	}
	return ifr.Uint32()
}

// claim holds an abstract unix socket that stands for an endpoint: a set of
// SO_REUSEPORT sockets would let a second daemon of the same user join, or an endpoint
// of another kind, and take half of the flows. Abstract names belong to a network
// namespace, as the ports they stand for do, and go with the process.
//
// An endpoint with a local address takes what is sent there from one without, which
// is well when that is ours.
func claim(c *EndpointConfig) (fd int, err error) {
	if any := c.any(); any.Local != c.Local && !endpoints.has(any) {
		fd, err := claimName(any.claimName())
		if err != nil {
			return -1, fmt.Errorf("%w (with two of them every tunnel of both needs a local_ip)", err)
		}
		unix.Close(fd)
	}
	fd, err = claimName(c.claimName())
	if err == nil && c.Local.IsUnspecified() {
		if other := foreignClaim(c); other != "" {
			unix.Close(fd)
			return -1, fmt.Errorf("%w: another vswitchd in this network namespace has %s (with two of them every tunnel of both needs a local_ip)",
				unix.EADDRINUSE, other)
		}
	}
	return fd, err
}

// foreignClaim returns the claim of an endpoint with a local address that is not ours,
// and takes from one without what is sent there; "" if there is none. Linux lists
// abstract names in /proc/net/unix.
func foreignClaim(c *EndpointConfig) string {
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		_, name, ok := strings.Cut(line, "@"+claimPrefix)
		if !ok {
			continue
		}
		name = strings.TrimSpace(name)
		other := *c
		if a, ok := strings.CutPrefix(name, "gre "); ok && c.Kind == GRE {
			other.Local, _ = netip.ParseAddr(a)
		} else if a, ok := strings.CutPrefix(name, "udp "); ok && c.Kind != GRE {
			at, _ := netip.ParseAddrPort(a)
			if other.Local = at.Addr(); at.Port() != c.Port {
				continue
			}
		}
		if other.Local.IsValid() && other.Local != c.Local && other.Local.Is4() == c.Local.Is4() && !endpoints.has(other) {
			return name
		}
	}
	return ""
}

// claimPrefix begins the names of claims.
const claimPrefix = "vswitch-tunnel-"

func (c *EndpointConfig) claimName() string {
	if c.Kind == GRE {
		return c.name()
	}
	return "udp " + netip.AddrPortFrom(c.Local, c.Port).String()
}

func claimName(name string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + claimPrefix + name}); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return -1, fmt.Errorf("%w: another vswitchd in this network namespace, or a tunnel of another kind, has %s", err, name)
		}
		return -1, err
	}
	return fd, nil
}

// explain adds to the error of a bind what an operator can do about it.
func explain(err error, c *EndpointConfig) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: %s has UDP port %d", err, holder(c), c.Port)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %s is not an address of this host", err, c.Local)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		need := "CAP_NET_BIND_SERVICE"
		if c.Kind == GRE {
			need = "CAP_NET_RAW"
		}
		return fmt.Errorf("%w (need %s)", err, need)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: this kernel has no IPv6", err)
	}
	return err
}

// holder says who has c's UDP port: the process that has a descriptor of the socket.
// One that nobody has is the kernel's own, or that of a process whose descriptors are
// not for a daemon of few capabilities to see.
//
//	sl  local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
func holder(c *EndpointConfig) string {
	file := "/proc/thread-self/net/udp"
	if c.Local.Is6() {
		file += "6"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "another socket"
	}
	suffix := fmt.Sprintf(":%04X", c.Port)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || !strings.HasSuffix(fields[1], suffix) {
			continue
		}
		if who := process("socket:[" + fields[9] + "]"); who != "" {
			return who
		}
	}
	return "an interface of the kernel (see ip -d link show type " + c.Kind.String() + "), or a process that may not be looked at (see ss -lunp),"
}

// process names the process that has a descriptor of the file, which links in
// /proc/PID/fd call so; "" if none that can be seen has.
func process(file string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, link := range links {
		if at, err := os.Readlink(link); err != nil || at != file {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return strings.TrimSpace(string(name)) + " (pid " + pid + ")"
	}
	return ""
}
