package subject

import "fmt"

// Topology says what a switch is stood up with. It is comparable: equal ones can
// share a bed.
type Topology struct {
	Containers int    // busy ones, c1…, with 10.0.0.N/24 on eth0; 2 to 200
	Idle       int    // more ports, of veth pairs with nobody behind them; up to 1000
	Tunnel     string // "": one host. "vxlan", "gre": two hosts, odd containers on the first
	Offloads   bool   // of the underlay: a veth's defaults; without, segmentation and GRO in software, as with a plain NIC
	TableSize  int    // MACs that the table must hold; 0: the switch's default
}

// The bounds of a topology.
const (
	maxContainers = 200 // last byte of an address
	maxIdle       = 1000
	maxTable      = 1_000_000
)

func (t Topology) validate() error {
	switch {
	case t.Containers < 2 || t.Containers > maxContainers:
		return fmt.Errorf("%d containers: want 2 to %d", t.Containers, maxContainers)
	case t.Idle < 0 || t.Idle > maxIdle:
		return fmt.Errorf("%d idle ports: want 0 to %d", t.Idle, maxIdle)
	case t.Tunnel != "" && t.Tunnel != "vxlan" && t.Tunnel != "gre":
		return fmt.Errorf("tunnel %q: want vxlan or gre", t.Tunnel)
	case t.TableSize < 0 || t.TableSize > maxTable:
		return fmt.Errorf("a table of %d MACs: want 0 to %d", t.TableSize, maxTable)
	}
	return nil
}

// hosts returns how many there are.
func (t Topology) hosts() int {
	if t.Tunnel == "" {
		return 1
	}
	return 2
}

// mtu returns that of containers: what fits the underlay's 1500 bytes with the
// headers of the tunnel, so that nobody has to say so first.
func (t Topology) mtu() int {
	const ethernet, ipv4, udp, vxlan, greWithKey = 14, 20, 8, 8, 8
	switch t.Tunnel {
	case "vxlan":
		return 1500 - ipv4 - udp - vxlan - ethernet
	case "gre":
		return 1500 - ipv4 - greWithKey - ethernet
	}
	return 1500
}

// tunnelKey is the VNI, or the GRE key, of tunnels between the hosts.
const tunnelKey = "42"

func underlayAddr(host int) string { return fmt.Sprintf("192.0.2.%d", host) }

// absent returns the address of a tunnel's remote that does not exist. With two
// hosts there is a route to it, so the tunnel is in working order.
func absent(i int) string { return fmt.Sprintf("198.18.%d.%d", i/256, i%256) }

const absentNet = "198.18.0.0/15" // RFC 2544, C.2.2: for benchmarks
