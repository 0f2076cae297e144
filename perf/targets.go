package perf

import (
	"fmt"
	"math"
)

// kernel and openvswitch are the peers that targets speak of. Of Open vSwitch's
// configurations the better one counts, for each metric anew.
var (
	kernel      = []string{"bridge"}
	openvswitch = []string{"ovs", "ovs-tso", "ovs-afxdp"}
)

// target is one thing that this switch must reach. It compares a value of ours,
// a median or a ratio of two of our medians, with a peer's best, or with a bound.
type target struct {
	Title string
	Value value
	// Peers names who is compared with; none: the bound is for the value itself.
	Peers  []string
	Bound  float64 // of ours to the peer's best, or of the value itself
	Better Direction
	Unit   string // of a bound for the value itself
}

// value is a metric of a scenario; with Over, divided by the same one of that
// scenario.
type value struct {
	Scenario, Metric, Over string
}

// Standing is a target with what was measured.
type Standing struct {
	Title    string
	Against  string // "Open vSwitch (ovs-tso)", "itself"
	Want     string // "≥ 4 ×"
	Measured string // "5.1 ×"
	Met      Met
	Why      string // where Met is Unknown
}

// Met says whether a target is reached.
type Met string

const (
	Yes     Met = "met"
	No      Met = "not met"
	Unknown Met = "not measured"
	LeftOut Met = "left out" // of this run, with its scenario or its subject
)

// targets are those of the project, in its order.
var targets = []target{
	peer("TCP, 1 stream, same host", value{"tcp-1", "rate", ""}, openvswitch, More, 4),
	peer("TCP, 1 stream, same host", value{"tcp-1", "rate", ""}, kernel, More, 0.8),
	peer("TCP, 8 streams", value{"tcp-8", "rate", ""}, openvswitch, More, 4),
	peer("TCP, 8 streams", value{"tcp-8", "rate", ""}, kernel, More, 0.8),
	peer("ping-pong p50", value{"ping-pong", "p50", ""}, openvswitch, Less, 0.15),
	peer("ping-pong p50", value{"ping-pong", "p50", ""}, kernel, Less, 1.2),
	peer("ping-pong p99", value{"ping-pong", "p99", ""}, openvswitch, Less, 0.1),
	peer("ping-pong p99", value{"ping-pong", "p99", ""}, kernel, Less, 1),
	peer("64-byte frames delivered", value{"frames-64", "rate", ""}, openvswitch, More, 2.5),
	peer("64-byte frames delivered", value{"frames-64", "rate", ""}, kernel, More, 0.8),
	peer("TCP over VXLAN, underlay offloads off", value{"vxlan-tcp", "rate", ""}, openvswitch, More, 8),
	peer("TCP over VXLAN, underlay offloads off", value{"vxlan-tcp", "rate", ""}, kernel, More, 0.8),
	peer("TCP over VXLAN, underlay offloads on", value{"vxlan-on-tcp", "rate", ""}, kernel, More, 0.4),
	peer("VXLAN ping-pong p50", value{"vxlan-ping-pong", "p50", ""}, openvswitch, Less, 0.15),
	peer("VXLAN ping-pong p50", value{"vxlan-ping-pong", "p50", ""}, kernel, Less, 1.5),
	peer("64-byte rate, 100k MACs to 1 flow", value{"macs-100k", "rate", "macs-1"}, openvswitch, More, 1),
	itself("64-byte rate, 100k MACs to 1 flow", value{"macs-100k", "rate", "macs-1"}, More, 0.7, "×"),
	itself("64-byte rate, 1,000 idle ports to 2 ports", value{"idle-1000", "rate", "ports-2"}, More, 0.9, "×"),
	peer("memory at rest", value{"memory", "rest", ""}, openvswitch, Less, 1),
	itself("memory at rest", value{"memory", "rest", ""}, Less, 40, "MB"),
	peer("memory per MAC", value{"macs-1m", "memory", ""}, openvswitch, Less, 1),
	itself("memory per MAC", value{"macs-1m", "memory", ""}, Less, 40, "B"),
	peer("memory per tunnel port", value{"vxlan-memory", "tunnel", ""}, openvswitch, Less, 1),
	itself("memory per tunnel port", value{"vxlan-memory", "tunnel", ""}, Less, 4, "KiB"),
	itself("a minute at half the highest rate: lost", value{"steady", "lost", ""}, Less, 0, "frames"),
	itself("a minute at half the highest rate: reordered", value{"steady", "reordered", ""}, Less, 0, "frames"),
	itself("a minute at half the highest rate: duplicated", value{"steady", "duplicated", ""}, Less, 0, "frames"),
}

func peer(title string, v value, peers []string, better Direction, bound float64) target {
	return target{Title: title, Value: v, Peers: peers, Better: better, Bound: bound}
}

func itself(title string, v value, better Direction, bound float64, unit string) target {
	return target{Title: title, Value: v, Better: better, Bound: bound, Unit: unit}
}

// Standings judges the run.
func (r *Results) Standings() (all []Standing) {
	for _, t := range targets {
		all = append(all, t.judge(r))
	}
	return all
}

func (t target) judge(r *Results) Standing {
	s := Standing{Title: t.Title, Against: "itself", Want: t.want(), Met: Unknown}
	if len(t.Peers) > 0 {
		s.Against = peerTitle(t.Peers)
	}
	mine, ok := t.Value.of(r, ours)
	if !ok {
		s.Met, s.Why = r.missing(t.Value, ours)
		return s
	}
	if len(t.Peers) == 0 {
		s.Measured, s.Met = number(mine)+" "+t.Unit, t.reached(mine)
		return s
	}
	best, who := 0.0, ""
	for _, p := range t.Peers {
		if v, ok := t.Value.of(r, p); ok && (who == "" || t.better(v, best)) {
			best, who = v, p
		}
	}
	if who == "" {
		s.Met, s.Why = r.missing(t.Value, t.Peers...)
		return s
	}
	if best == 0 {
		s.Why = who + "'s value is 0"
		return s
	}
	s.Against += " (" + who + ")"
	s.Measured, s.Met = times(mine/best), t.reached(mine/best)
	return s
}

// reached compares what was measured, unrounded.
func (t target) reached(v float64) Met {
	if v == t.Bound || t.better(v, t.Bound) {
		return Yes
	}
	return No
}

func (t target) better(a, b float64) bool {
	if t.Better == More {
		return a > b
	}
	return a < b
}

func (t target) want() string {
	sign, unit := "≤", "×"
	if t.Better == More {
		sign = "≥"
	}
	if t.Unit != "" {
		unit = t.Unit
	}
	return fmt.Sprintf("%s %v %s", sign, t.Bound, unit)
}

// of returns the value of a subject, and whether there is one.
func (v value) of(r *Results, subject string) (float64, bool) {
	top := r.stat(v.Scenario, subject, v.Metric)
	if v.Over == "" {
		return top.Median, top.N > 0 && !math.IsNaN(top.Median)
	}
	return ratio(top, r.stat(v.Over, subject, v.Metric))
}

// missing says why a value of all these subjects is not there.
func (r *Results) missing(v value, subjects ...string) (Met, string) {
	for _, scenario := range []string{v.Scenario, v.Over} {
		s := r.Scenario(scenario)
		if s == nil {
			continue
		}
		for _, subject := range subjects {
			o := s.Outcome(subject)
			switch {
			case o == nil || o.Stat(v.Metric).N > 0:
			case o.Cannot != "":
				return Unknown, subject + ": " + o.Cannot
			case len(o.Failures) > 0:
				return Unknown, subject + " failed"
			default:
				return Unknown, subject + " has no such value"
			}
		}
	}
	return LeftOut, ""
}

func peerTitle(peers []string) string {
	if peers[0] == kernel[0] {
		return "the Linux kernel"
	}
	return "Open vSwitch"
}
