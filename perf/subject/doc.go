// Package subject stands up the switches that are compared, each on the same
// topology: this one, Open vSwitch's userspace datapath, the Linux bridge with the
// kernel's tunnels, and VDE. It measures nothing but what a process uses, and
// decides nothing about what is fair beyond each switch's best working settings,
// which Subject.Notes tells.
//
// Its one idea: a subject is known by what it does with a Topology, and all that
// stands is a Bed, in a lab that takes everything away again.
//
//	Topology{Containers: 3, Idle: 2}
//
//	┌─ c1 ──────┐   ┌─ h1 ─────────────────────────────────┐
//	│ eth0 .1   ┼───┼─ veth-c1           the switch        │   ┌─ idle ────┐
//	└───────────┘   │                                idle1 ┼───┼─ idle1    │
//	┌─ c2, c3 ──┐   │                                idle2 ┼───┼─ idle2    │
//	│ eth0 .2 … ┼───┼─ veth-c2 …                           │   └───────────┘
//	└───────────┘   └──────────────────────────────────────┘
//
//	Topology{Containers: 2, Tunnel: "vxlan"}
//
//	┌─ c1 ──────┐   ┌─ h1 ────────────────────────┐   ┌─ h2 ────────────────────────┐   ┌─ c2 ──────┐
//	│ eth0 .1   ┼───┼─ veth-c1  switch  eth0 .1   ┼───┼─ eth0 .2   switch   veth-c2 ┼───┼─ eth0 .2  │
//	└───────────┘   │           192.0.2.1/24      │   │            192.0.2.2/24     │   └───────────┘
//	                └─────────────────────────────┘   └─────────────────────────────┘
//
// Between hosts there is a cable (a veth pair), with no switch in the middle that
// would be measured too. Containers are 10.0.0.N/24 on eth0; IPv6 is off, so that
// nothing is sent that nobody asked for.
package subject
