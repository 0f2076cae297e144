// Package lab makes hosts and containers out of network namespaces, for tests,
// the demonstration and benchmarks. It is not for running real containers.
//
// Its one idea is cleanup that cannot be forgotten: whatever is made belongs to
// a Lab, and a Lab ends with its test. What a killed test leaves behind carries
// its process id in its name, and the next New sweeps it away.
//
//	        the machine's own namespace (never touched)
//
//	┌─ Host "a" ───────────────────────────┐   ┌─ Container "c1" ──────────┐
//	│ namespace vsw-<pid>-<n>-a            │   │ namespace vsw-…-a.c1      │
//	│                                      │   │                           │
//	│ vswitchd   veth-c1 ◄─────────────────┼───┼─► eth0  10.0.0.1/24       │
//	│  (Daemon)                            │   └───────────────────────────┘
//	│            veth-c2 ◄─────────────────┼─┐ ┌─ Container "c2" ──────────┐
//	│            lo                        │ └─┼─► eth0  10.0.0.2/24       │
//	└──────────────────────────────────────┘   └───────────────────────────┘
//
// A test reads:
//
//	l := lab.New(t)
//	h := l.Host("a")
//	c1 := h.Container("c1", lab.Addr("10.0.0.1/24"))
//	c2 := h.Container("c2", lab.Addr("10.0.0.2/24"))
//	d := h.Daemon(lab.DaemonOptions{})
//	d.Ctl("add-br", "br0")
//	d.Ctl("add-port", "br0", c1.Veth)
//	d.Ctl("add-port", "br0", c2.Veth)
//	if err := lab.Ping(c1, c2); err != nil {
//		t.Fatal(err)
//	}
//
// # Several hosts
//
// An Underlay is the network between hosts. What joins containers over it is a
// daemon in each host, or a peer: the kernel's VXLAN (Host.KernelVXLAN), or Open
// vSwitch's userspace datapath (Lab.OVS) with its underlay and its tunnels.
//
//	u := l.Underlay("net", lab.UnderlayOptions{MTU: 9000})
//	u.Join(a, "192.0.2.1/24", "2001:db8::1/64")
//	u.Join(b, "192.0.2.2/24", "2001:db8::2/64")
//
// # Failure
//
// Calls that build the lab fail the test when they cannot (they call t.Fatal, so
// they belong on the test's goroutine); calls that a test asks a question with
// return an error.
//
// A command that is no test has a lab, too: it gives New a Standalone, and has the
// failure as an error.
//
// # Silence
//
// A container without an IPv6 address has IPv6 turned off, and a veth's host end
// always has: nothing is sent that the test did not send. A container with an
// IPv6 address has no duplicate address detection, no link-local address and no
// router solicitations; multicast listener reports remain.
//
// # Processes and namespaces
//
// Every process of a lab is started by one thread that lives as long as the test
// binary, because PR_SET_PDEATHSIG fires when the thread that forked ends, not
// the process (golang.org/issue/27505): however the test binary ends, what it
// started is killed.
package lab
