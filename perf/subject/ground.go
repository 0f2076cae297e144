package subject

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"vswitch/internal/lab"
)

// silent lets interfaces that anybody makes in a host say nothing of their own.
func silent(l *lab.Lab, h *lab.Host) {
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.T().Fatalf("subject: no IPv6 in %s: %v", h.Name, err)
	}
}

// cable joins two hosts.
func cable(l *lab.Lab, hosts []*lab.Host, t Topology) {
	h1, h2 := hosts[0], hosts[1]
	l.Wire(h1.Namespace, "eth0", underlayAddr(1)+"/24", h2.Namespace, "eth0", underlayAddr(2)+"/24")
	for i, h := range hosts {
		if !t.Offloads {
			// A name that this kernel has not is refused, with all that came before.
			for _, feature := range segmentation {
				h.Exec("ethtool", "-K", "eth0", feature, "off")
			}
			// A NIC's driver joins what it receives; of a veth, only one that is told to.
			h.MustExec("ethtool", "-K", "eth0", "gro", "on")
		}
		h.MustExec("ip", "route", "add", absentNet, "via", underlayAddr(2-i))
	}
}

// segmentation is what an interface may do with super-frames instead of the kernel's
// software. Without, what is on the cable fits its MTU; checksums are still left to
// the interface, as all NICs do them.
var segmentation = []string{
	"tso", "gso", "tx-udp-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
	"tx-gre-segmentation", "tx-gre-csum-segmentation",
}

// vethPairs makes idle ports' interfaces, up and with a carrier. They are made in one
// batch.
func vethPairs(l *lab.Lab, h *lab.Host, n int) (ifnames []string) {
	behind := l.Host("idle")
	silent(l, behind)
	var batch strings.Builder
	for i := range n {
		name := idleName(i)
		ifnames = append(ifnames, name)
		fmt.Fprintf(&batch, "link add name %s group %s type veth peer name %s group %s netns %s\n",
			name, group, name, group, behind.Name)
	}
	runBatch(l, h, batch.String())
	l.Cleanup(func() { deleteIdle(h) })
	for _, end := range []*lab.Host{behind, h} {
		end.MustExec("ip", "link", "set", "group", group, "up")
	}
	return ifnames
}

// group is that of idle interfaces (ip-link(8)).
const group = "9"

// deleteIdle deletes the group in one request: that is one wait for the kernel, not
// a thousand, and it is over when the next bed is made, as the end of a namespace
// would not be.
func deleteIdle(h *lab.Host) { h.Exec("ip", "link", "del", "group", group) }

func idleName(i int) string { return fmt.Sprintf("idle%d", i+1) }

// runBatch runs many commands of ip(8) at once.
func runBatch(l *lab.Lab, h *lab.Host, batch string) {
	p := h.StartWith(strings.NewReader(batch), "ip", "-batch", "-")
	if err := p.Wait(time.Minute); err != nil {
		l.T().Fatalf("subject: ip -batch in %s: %v\n%s", h.Name, err, p.Out)
	}
}
