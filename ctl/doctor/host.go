package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/ports"
)

// checkHost looks at what the daemon may do, and at the host's clock.
func (x *visit) checkHost() {
	x.checkCapabilities()
	x.checkClock()
	x.checkFiles()
	x.checkBuffers()
}

// capability is one that the daemon needs: without all of the bits in any, something
// does not work.
var capabilities = []struct {
	name string
	any  []int // one of these is enough
	what string
}{
	{"CAP_NET_ADMIN", []int{unix.CAP_NET_ADMIN}, "bring interfaces up, make TAPs, keep frames from the host's stack"},
	{"CAP_NET_RAW", []int{unix.CAP_NET_RAW}, "read and send frames on interfaces, GRE"},
	{"CAP_BPF or CAP_SYS_ADMIN", []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, "load the program that keeps frames from the host's stack"},
}

func (x *visit) checkCapabilities() {
	have, err := effectiveCapabilities()
	if err != nil {
		x.unknown("host", "capabilities", "", "", "%v", err)
		return
	}
	var names []string
	for _, c := range capabilities {
		found := false
		for _, bit := range c.any {
			found = found || have&(1<<bit) != 0
		}
		if found {
			names = append(names, c.name)
			continue
		}
		x.fail("host", "capabilities", c.name, "run vswitchd as root, or give its service AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF",
			"the daemon does not have it, which it needs to %s", c.what)
	}
	if len(names) == len(capabilities) {
		x.ok("host", "capabilities", "", "the daemon has %s", strings.Join(names, ", "))
	}
}

// effectiveCapabilities reads CapEff, proc(5).
func effectiveCapabilities() (uint64, error) {
	f, err := os.Open("/proc/thread-self/status")
	if err != nil {
		return 0, fmt.Errorf("read the daemon's capabilities: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if hex, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("read the daemon's capabilities: the kernel does not tell of them")
}

// checkClock asks the kernel whether somebody keeps its clock right (adjtimex(2)).
func (x *visit) checkClock() {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const timeError = 5 // TIME_ERROR, linux/timex.h
	switch {
	case err != nil:
		x.unknown("host", "clock", "", "", "ask the kernel for the clock's state: %v", err)
	case state == timeError || t.Status&unix.STA_UNSYNC != 0:
		x.warn("host", "clock", "", "run a time service, such as chrony or systemd-timesyncd",
			"nobody keeps it right: captures and events of several hosts cannot be laid side by side")
	default:
		x.ok("host", "clock", "", "synchronised, to %d ms by the kernel's estimate", t.Esterror/1000)
	}
}

// checkFiles looks at how many files the daemon may have open: each port takes some.
func (x *visit) checkFiles() {
	var limit unix.Rlimit
	entries, err := os.ReadDir("/proc/self/fd")
	if e := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || e != nil {
		x.unknown("host", "files", "", "", "count the daemon's open files: %v", errors.Join(err, e))
		return
	}
	used := uint64(len(entries))
	if used*5 > limit.Cur*4 {
		x.warn("host", "files", "", "raise it: LimitNOFILE= of vswitchd's service", "%d are open of the %d that the daemon may have", used, limit.Cur)
		return
	}
	x.ok("host", "files", "", "%d are open of the %d that the daemon may have", used, limit.Cur)
}

// checkBuffers looks at the bound of socket buffers, which only CAP_NET_ADMIN may go
// beyond.
func (x *visit) checkBuffers() {
	have, err := effectiveCapabilities()
	if err == nil && have&(1<<unix.CAP_NET_ADMIN) != 0 {
		return
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		b, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			continue // not this namespace's to see
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil && n < ports.DefaultRxBuffer {
			x.warn("host", "buffers", name, fmt.Sprintf("sysctl -w net.core.%s=%d", name, ports.DefaultRxBuffer),
				"net.core.%s is %d bytes, and the switch wants %d for each socket", name, n, ports.DefaultRxBuffer)
		}
	}
}

// feature is one of the kernel's that the switch leans on. Probing one leaves nothing
// behind. lacks is what it comes to when it is absent, and severe whether ports fail
// then.
type feature struct {
	name   string
	probe  func() error // nil: present; absent: errAbsent; else it could not be told
	severe bool
	lacks  string
	fix    string
}

var errAbsent = errors.New("this kernel does not have it")

const newerKernel = "run a newer kernel"

var kernelFeatures = []feature{
	{"PACKET_VNET_HDR", probePacket(unix.PACKET_VNET_HDR), true, "no interface can be a port: its frames' offload state would be lost", newerKernel},
	{"PACKET_IGNORE_OUTGOING", probePacket(unix.PACKET_IGNORE_OUTGOING), true, "no interface can be a port: it would get its own frames back", newerKernel + " (4.20)"},
	{"TPACKET_V2 receive rings", probeRing, false, "busy ports read small frames at a lower rate", newerKernel + " (6.2)"},
	{"PACKET_FANOUT_CBPF", probeFanout, false, "ports cannot get a receive ring when they become busy", newerKernel + " (4.3)"},
	{"TUN/TAP with virtio-net headers", probeTUN, true, "local, internal and tap ports cannot be made", "modprobe tun, or let the daemon see /dev/net/tun"},
	{"tc programs", probeProgram, true, "frames of ports cannot be kept from the host's stack, so ports are refused", "give the daemon CAP_BPF, or CAP_SYS_ADMIN; the kernel wants CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF"},
	{"UDP_SEGMENT", probeUDP(unix.UDP_SEGMENT), false, "tunnels send each segment by itself, many times slower", newerKernel + " (4.18)"},
	{"UDP_GRO", probeUDP(unix.UDP_GRO), false, "tunnels receive each segment by itself, many times slower", newerKernel + " (5.0)"},
}

// checkKernel tries out what the switch needs of the kernel.
func (x *visit) checkKernel(ctx context.Context) {
	x.ok("kernel", "version", "", "Linux %s", Kernel())
	for _, f := range kernelFeatures {
		x.judgeFeature(f, f.probe())
	}
	x.judgeFeature(feature{name: "TCX", lacks: "--ingress-stop tcx cannot be had; the usual clsact serves", fix: ""}, probeTCX())
	x.checkClsact(ctx)
}

func (x *visit) judgeFeature(f feature, err error) {
	switch {
	case err == nil:
		x.ok("kernel", "feature", f.name, "present")
	case errors.Is(err, errAbsent) && f.severe:
		x.fail("kernel", "feature", f.name, f.fix, "absent: %s", f.lacks)
	case errors.Is(err, errAbsent) && f.fix == "":
		x.ok("kernel", "feature", f.name, "absent: %s", f.lacks)
	case errors.Is(err, errAbsent):
		x.warn("kernel", "feature", f.name, f.fix, "absent: %s", f.lacks)
	default:
		x.unknown("kernel", "feature", f.name, permissionFix(err), "%v", err)
	}
}

func permissionFix(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "the daemon lacks a capability: see host"
	}
	return ""
}

// absent tells a kernel that does not know something from one that refused.
func absent(err error) error {
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return errAbsent
	}
	return err
}

// withSocket runs do with a socket that is closed afterwards.
func withSocket(domain, kind, proto int, do func(fd int) error) error {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return errAbsent
		}
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	return do(fd)
}

// probePacket sets an option of a packet socket that receives nothing.
func probePacket(option int) func() error {
	return func() error {
		return withSocket(unix.AF_PACKET, unix.SOCK_RAW, 0, func(fd int) error {
			return absent(unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1))
		})
	}
}

// probeRing asks for a small receive ring. Before Linux 6.2 the switch does without:
// a frame that a virtio-net header cannot express makes them deaf.
func probeRing() error {
	if before(6, 2) {
		return errAbsent
	}
	return withSocket(unix.AF_PACKET, unix.SOCK_RAW, 0, func(fd int) error {
		if err := absent(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)); err != nil {
			return err
		}
		page := uint32(os.Getpagesize())
		return absent(unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING,
			&unix.TpacketReq{Block_size: page, Block_nr: 1, Frame_size: page / 16, Frame_nr: 16}))
	})
}

// before reports whether the kernel is older.
func before(major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(Kernel(), "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}

// probeFanout makes a fanout group of one socket, for an EtherType that nobody speaks.
func probeFanout() error {
	const proto = 0x88b6 // IEEE 802's second local experimental EtherType
	return withSocket(unix.AF_PACKET, unix.SOCK_RAW, int(proto>>8|proto&0xff<<8), func(fd int) error {
		mode := unix.PACKET_FANOUT_CBPF | unix.PACKET_FANOUT_FLAG_UNIQUEID
		err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, mode<<16)
		if errors.Is(err, unix.EINVAL) {
			return errAbsent
		}
		return absent(err)
	})
}

// probeTUN asks what the TUN driver can do (TUNGETFEATURES, linux/if_tun.h), which
// makes no interface.
func probeTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return absent(fmt.Errorf("open /dev/net/tun: %w", err))
	}
	defer unix.Close(fd)
	have, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	if err != nil {
		return fmt.Errorf("ask the TUN driver: %w", err)
	}
	if have&unix.IFF_VNET_HDR == 0 || have&unix.IFF_TAP == 0 {
		return errAbsent
	}
	return nil
}

// probeProgram loads a program such as a port's stop is.
func probeProgram() error {
	err := features.HaveProgramType(ebpf.SchedCLS)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return errAbsent
	}
	return err
}

// probeTCX asks which TCX programs the loopback interface has.
func probeTCX() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look at the loopback interface: %w", err)
	}
	_, err = link.QueryPrograms(link.QueryOptions{Target: lo.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return errAbsent
	}
	return err
}

func probeUDP(option int) func() error {
	return func() error {
		return withSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
			value := 1
			if option == unix.UDP_SEGMENT {
				value = 1000
			}
			return absent(unix.SetsockoptInt(fd, unix.SOL_UDP, option, value))
		})
	}
}

// checkClsact puts a stop on an interface of the doctor's own, as on a port.
func (x *visit) checkClsact(ctx context.Context) {
	const name = "stop at tc ingress"
	port, far := x.o.interfaceName(8), x.o.interfaceName(9)
	index, _, err := x.makePair(ctx, port, far)
	if err != nil {
		x.unknown("kernel", "feature", name, permissionFix(err), "%v", err)
		return
	}
	defer ports.RemoveLink(port)
	stop, err := x.o.Stopper.Stop(index)
	if err != nil {
		x.fail("kernel", "feature", name, "give the daemon CAP_NET_ADMIN and CAP_BPF; the kernel wants CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS",
			"frames cannot be kept from the host's stack: %v", err)
		return
	}
	x.ok("kernel", "feature", name, "works, by %s", stop.Kind())
	_ = stop.Close() // it goes with its interface in any case
}

// Kernel returns the running kernel's release, as uname -r tells it.
func Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
