package lab

import (
	"strconv"
	"strings"
)

// KernelVXLAN makes a VXLAN device of the kernel: the peer that is always there,
// and the one that most networks have. remote may be empty (then the device knows
// no default peer). args are more words of `ip link add … type vxlan`: "dstport",
// "8472", "df", "set", "nolearning". It is up, is given the MTU of its containers
// by its maker (1500 here), and belongs into a KernelBridge with them:
//
//	h.KernelVXLAN("vx0", 42, "192.0.2.2", "192.0.2.1")
//	h.KernelBridge("br0", "vx0", c.Veth)
//
// It fragments what does not fit the underlay, unless args have "df" and "set".
func (h *Host) KernelVXLAN(name string, vni int, local, remote string, args ...string) {
	h.lab.t.Helper()
	command := []string{"ip", "link", "add", "name", name, "type", "vxlan", "id", strconv.Itoa(vni), "local", local}
	if remote != "" {
		command = append(command, "remote", remote)
	}
	if !strings.Contains(" "+strings.Join(args, " "), " dstport ") {
		command = append(command, "dstport", "4789")
	}
	h.MustExec(append(command, args...)...)
	if err := h.Do(func() error { return quietIPv6(name) }); err != nil {
		h.lab.t.Fatalf("lab: kernel vxlan %s: %v", name, err)
	}
	h.MustExec("ip", "link", "set", "dev", name, "up")
}
