package perf

import (
	"vswitch/perf/loadgen"
	"vswitch/perf/subject"
)

// Sizes of the frames that are sent, without the frame check sequence.
const (
	size64   = loadgen.MinLen
	size512  = 508
	size1518 = 1514
)

// million is the largest table that anybody is asked for. Open vSwitch takes no
// more.
const million = 1_000_000

// Efforts by name. What a target compares with a peer is measured in each round.
var (
	each   = Effort{}
	main   = Effort{Quick: true}
	thrice = Effort{Rounds: 3}
	twice  = Effort{Rounds: 2}
	once   = Effort{Rounds: 1}
)

// All returns every scenario. Those of a topology stand together, and what leaves
// a bed as it should not be for others comes last.
func All() []Scenario {
	pair := subject.Topology{Containers: 2}
	all := []Scenario{
		{"memory", "Memory at rest", restMetrics, pair, Effort{Rounds: 3, Quick: true}, memoryAtRest},
		{"tcp-1", "TCP, one stream, same host", tcpMetrics, pair, main, tcp(1)},
		{"tcp-8", "TCP, eight streams, same host", tcpMetrics, pair, main, tcp(8)},
		{"ping-pong", "UDP ping-pong, same host", pingPongMetrics, pair, main, pingPong},
		{"frames-64", "64-byte frames, as fast as they are sent", frameMetrics, pair, main, frames(1, size64)},
		{"frames-512", "512-byte frames, as fast as they are sent", frameMetrics, pair, thrice, frames(1, size512)},
		{"frames-1518", "1518-byte frames, as fast as they are sent", frameMetrics, pair, thrice, frames(1, size1518)},
		{"frames-imix", "IMIX (7 × 64, 4 × 594, 1 × 1518 bytes), as fast as they are sent", frameMetrics, pair, thrice, frames(1, loadgen.IMIX()...)},
		{"lossless-64", "64-byte frames, the highest rate without loss", losslessMetrics, pair, twice, lossless(size64)},
		{"lossless-512", "512-byte frames, the highest rate without loss", losslessMetrics, pair, once, lossless(size512)},
		{"lossless-1518", "1518-byte frames, the highest rate without loss", losslessMetrics, pair, once, lossless(size1518)},
		{"lossless-imix", "IMIX, the highest rate without loss", losslessMetrics, pair, twice, lossless(loadgen.IMIX()...)},
		{"ports-2", "64-byte frames from one port to another", fanOutMetrics, pair, each, spread},
		{"steady", "A minute of 64-byte frames at half the highest rate delivered, 16 flows", steadyMetrics, pair, Effort{Rounds: 1, Peers: alone}, steady},
		{"add-port", "From the start of the command that adds a port to its first frame", addPortMetrics, pair, each, addPort},
		{"port-memory", "Memory of 100 more ports", portMemoryMetrics, pair, twice, portMemory(100)},
	}
	// Each flow has a source and a destination of its own, and the table room for
	// both.
	many := subject.Topology{Containers: 2, TableSize: 1 << 18}
	for _, n := range []struct {
		flows       int
		effort      Effort
		name, title string
	}{
		{1, each, "1", "from one MAC to one"},
		{100, thrice, "100", "from 100 MACs to 100"},
		{10_000, thrice, "10k", "from 10k MACs to 10k"},
		{100_000, each, "100k", "from 100k MACs to 100k"},
	} {
		all = append(all, Scenario{"macs-" + n.name, "64-byte frames, " + n.title + ", as fast as they are sent",
			frameMetrics, many, n.effort, frames(n.flows, size64)})
	}
	all = append(all, Scenario{"macs-1m", "Learning a million addresses", learningMetrics,
		subject.Topology{Containers: 2, TableSize: million}, Effort{Rounds: 3, Peers: 1}, learning(million)})
	// The widest topology has 200 containers; more ports have nobody behind them.
	all = append(all,
		Scenario{"ports-32", "64-byte frames from one port to 31 others in turn", fanOutMetrics, subject.Topology{Containers: 32}, thrice, spread},
		Scenario{"ports-256", "64-byte frames from one port to 199 others in turn, beside 56 idle ones", fanOutMetrics,
			subject.Topology{Containers: 200, Idle: 56}, twice, spread},
		Scenario{"idle-1000", "64-byte frames from one port to another, beside 1,000 idle ones", fanOutMetrics,
			subject.Topology{Containers: 2, Idle: 1000}, Effort{Peers: 2}, spread},
		Scenario{"flood-100", "64-byte frames flooded to 100 ports", fanOutMetrics, subject.Topology{Containers: 101}, twice, flood})
	for _, t := range []struct {
		name, kind, title string
		offloads          bool
		effort, frames    Effort
	}{
		{"vxlan", "vxlan", "over VXLAN, underlay offloads off", false, main, thrice},
		{"vxlan-on", "vxlan", "over VXLAN, underlay offloads on", true, each, thrice},
		{"gre", "gre", "over GRE, underlay offloads off", false, twice, twice},
		{"gre-on", "gre", "over GRE, underlay offloads on", true, twice, twice},
	} {
		topology := subject.Topology{Containers: 2, Tunnel: t.kind, Offloads: t.offloads}
		all = append(all,
			Scenario{t.name + "-tcp", "TCP, one stream, " + t.title, tcpMetrics, topology, t.effort, tcp(1)},
			Scenario{t.name + "-ping-pong", "UDP ping-pong, " + t.title, pingPongMetrics, topology, t.effort, pingPong},
			Scenario{t.name + "-64", "64-byte frames, as fast as they are sent, " + t.title, frameMetrics, topology, t.frames, frames(1, size64)})
		if t.name == "vxlan" {
			all = append(all, Scenario{"vxlan-memory", "Memory of 500 more VXLAN ports", tunnelMemoryMetrics, topology, twice, tunnelMemory(500)})
		}
	}
	return all
}

// Quick leaves the scenarios of a quick run.
func Quick(all []Scenario) (some []Scenario) {
	for _, s := range all {
		if s.Quick {
			some = append(some, s)
		}
	}
	return some
}
