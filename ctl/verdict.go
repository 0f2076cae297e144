package ctl

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"time"

	"vswitch/ctl/api"
)

// judge says in a sentence where the address is and how it is doing, and what to do
// next.
func (in *inquiry) judge() {
	out := &in.out
	live := 0
	for _, p := range out.Places {
		if p.Gone == "" {
			live++
		}
	}
	subject := out.Address
	switch {
	case live > 0:
		p := &out.Places[0]
		switch {
		case in.ip.IsValid() && p.Own:
			subject += " is " + p.MAC + ","
		case in.ip.IsValid():
			subject += " is " + p.MAC
		default:
			subject += " is"
		}
		out.Verdict = subject + in.placeText(p)
		if live > 1 {
			out.Verdict += fmt.Sprintf("; and at %s more, see below", plural(live-1, "place"))
		}
		in.tryPort(p)
	case in.ip.IsValid() && len(out.Neighbors) > 0:
		n := &out.Neighbors[0]
		out.Verdict = fmt.Sprintf("%s is %s, as %s at %s said %s ago; that MAC address is not known any more%s",
			subject, n.MAC, byText(n.By), n.Port, in.ago(n.LastSeen), in.pastText(n.MAC))
		in.trySilent(n.Bridge)
	case len(out.Places) > 0:
		p := &out.Places[0]
		out.Verdict = fmt.Sprintf("%s is not known any more%s", subject, in.pastText(p.MAC))
		in.trySilent(p.Bridge)
	default:
		out.Verdict = "nobody has heard of " + subject + " on " + cmp.Or(out.Bridge, "any bridge")
		if in.ip.IsValid() && !in.forgot.IsZero() {
			out.Verdict = fmt.Sprintf("%s is not remembered on %s; but more addresses were heard than are remembered, the last time %s ago",
				subject, cmp.Or(out.Bridge, "any bridge"), in.ago(in.forgot))
		}
		in.tryUnknown()
	}
	if len(out.Drops) > 0 {
		last := &out.Drops[0]
		var sum uint64
		for _, x := range out.Drops {
			sum += x.Count
		}
		out.Verdict += fmt.Sprintf("; %s that named it %s dropped lately, the last one %s ago at %s: %s",
			plural(sum, "frame"), were(sum), in.ago(last.LastSeen), last.Port, last.Reason)
	}
	if len(out.Contradictions) > 0 {
		out.Verdict += "; beware, there is a contradiction"
	}
}

func (in *inquiry) ago(t time.Time) string { return api.Span(in.now.Sub(t)) }

// placeText says of a place: behind what, how that is, when it was heard.
func (in *inquiry) placeText(p *api.WhyPlace) string {
	var b strings.Builder
	switch {
	case p.Own:
		fmt.Fprintf(&b, " this host's own, at %s", where(p))
	case p.Remote != "":
		fmt.Fprintf(&b, " behind %s, a %s tunnel to %s", where(p), p.Type, p.Remote)
	default:
		fmt.Fprintf(&b, " behind %s", where(p))
	}
	state := p.State
	if state != api.PortUp && state != "" {
		state = strings.ToUpper(state)
		if p.Reason != "" {
			state += " (" + p.Reason + ")"
		}
	}
	if state != "" {
		b.WriteString(", " + state)
	}
	switch {
	case p.Static:
		b.WriteString(", set by hand")
	case p.LastHeard != nil:
		fmt.Fprintf(&b, ", last heard %s ago", in.ago(*p.LastHeard))
	}
	return b.String()
}

// pastText says where a MAC address was.
func (in *inquiry) pastText(mac string) string {
	for _, p := range in.out.Places {
		if p.MAC != mac || p.Gone == "" {
			continue
		}
		text := ": it was behind " + where(&p)
		switch {
		case p.Gone == "forgotten":
			return text + " until it was flushed, or its port went"
		case p.Gone == "evicted":
			return text + fmt.Sprintf(" until it gave way %s ago, since the table is full", in.ago(*p.GoneAt))
		}
		return text + fmt.Sprintf(" until it was silent for the aging time, %s ago", in.ago(*p.GoneAt))
	}
	return ""
}

func (in *inquiry) try(format string, args ...any) {
	in.out.Try = append(in.out.Try, fmt.Sprintf(format, args...))
}

// expression is a capture filter for the address.
func (in *inquiry) expression() string {
	if in.ip.IsValid() {
		return "host " + in.out.Address
	}
	return "ether host " + in.out.Address
}

func (in *inquiry) tryPort(p *api.WhyPlace) {
	if p.State != api.PortUp && p.State != "" {
		in.try("its port is not up: `vswitchctl show %s` says why", p.Bridge)
	}
	if len(in.out.Drops) > 0 {
		in.try("`vswitchctl drops %s %s` says what to do about the drops", in.out.Drops[0].Bridge, in.out.Drops[0].Port)
	}
}

// trySpoke tells of an address whose frames come, and are dropped.
func (in *inquiry) trySpoke() (spoke bool) {
	for _, x := range in.out.Drops {
		if x.As != "destination" && !spoke {
			in.try("it is not silent: what it sends is dropped at %s of %s: %s", x.Port, x.Bridge, x.Help)
			spoke = true
		}
	}
	return spoke
}

func (in *inquiry) trySilent(bridge string) {
	if in.trySpoke() {
		return
	}
	in.try("it may only be silent: let it send something, such as a ping, and ask again")
	in.try("see whether anything comes: `vswitchctl capture %s '%s'`", bridge, in.expression())
	in.tryPorts()
}

func (in *inquiry) tryUnknown() {
	for _, p := range in.ports {
		if p.MAC != "" && p.MAC == in.out.Address {
			in.try("it is the host's end of port %s: who is behind that port has another MAC address", p.Name)
		}
	}
	if mac, err := net.ParseMAC(in.out.Address); err == nil && mac[0]&1 != 0 {
		in.try("it is a group's address, which nobody sends from")
		return
	}
	if in.ip.IsMulticast() {
		in.try("it is a group's address, which nobody sends from")
		return
	}
	if in.trySpoke() {
		return
	}
	in.try("let it send something, such as a ping: who never speaks is known to no switch")
	if in.ip.IsValid() {
		in.try("see whether it is asked for, and by whom: `vswitchctl capture %s 'arp or icmp6'`", in.someBridge())
		in.try("an address beyond a router is known to nobody here: ask for the router's")
	} else {
		in.try("see whether anything comes from it: `vswitchctl capture %s '%s'`", in.someBridge(), in.expression())
	}
	in.tryPorts()
}

func (in *inquiry) someBridge() string {
	if in.out.Bridge != "" || len(in.bridges) == 0 {
		return cmp.Or(in.out.Bridge, "BR")
	}
	return in.bridges[0].Name
}

// mostPorts bounds how many ports are named that are not up.
const mostPorts = 5

// tryPorts names ports that are not up: it may be behind one.
func (in *inquiry) tryPorts() {
	n := 0
	for _, b := range in.bridges {
		for _, p := range b.Ports {
			if p.State == api.PortUp || p.Type == "local" {
				continue
			}
			if n++; n <= mostPorts {
				in.try("it may be behind %s of %s, which is %s: %s", p.Name, b.Name, p.State, p.Reason)
			}
		}
	}
	if n > mostPorts {
		in.try("%d ports more are not up: `vswitchctl show`", n-mostPorts)
	}
}

// byText says how an address was claimed.
func byText(by string) string {
	switch by {
	case byRequest:
		return "an ARP request"
	case byReply:
		return "an ARP reply"
	case byAnnouncement:
		return "an ARP announcement"
	case bySolicitation:
		return "a neighbour solicitation"
	}
	return "a neighbour advertisement"
}

func plural[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func were(n uint64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}
