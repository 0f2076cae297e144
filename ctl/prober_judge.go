package ctl

import (
	"fmt"
	"strings"

	"vswitch/ctl/api"
)

// pathEnds are the ends of a path.
type pathEnds struct {
	ports   []string     // "veth2 of br0 on host b": those that lead to no other switch
	hosts   map[int]bool // hops with such ports
	far     int          // hops to the last of ports
	drops   []string
	help    string // of the first drop
	other   string // where the target is instead
	silent  []string
	down    []string // ports that it would have left by
	loop    string
	end     bool
	flooded string // the note of a switch that floods it
	known   bool   // some switch knows where the target is
	more    int    // ports that are not told, and that nobody followed
}

// judgePath says in a sentence where a path leads.
func judgePath(p *api.Path) {
	e := endsOf(p)
	p.Reached = len(e.ports) > 0
	switch {
	case e.loop != "":
		p.Verdict = fmt.Sprintf("a loop: the frame comes back to %s", e.loop)
		p.Fix = "take one of the tunnels or patches of the loop away, or make the tunnels one mesh (mesh add), whose hosts do not pass frames on to each other"
	case len(e.ports) > 0 && e.flooded == "":
		if len(e.ports) == 1 {
			p.Verdict = fmt.Sprintf("%s leaves by %s%s", p.MAC, e.ports[0], afterText(e.far))
		} else {
			p.Verdict = fmt.Sprintf("%s leaves by %s on %s", p.MAC, portsText(len(e.ports)), switchesText(len(e.hosts)))
		}
		if len(e.drops) > 0 {
			p.Verdict += "; and dropped at " + e.drops[0]
			p.Fix = e.help
		}
	case len(e.ports) > 0:
		p.Verdict = fmt.Sprintf("%s is flooded", p.MAC)
		if !strings.HasPrefix(e.flooded, "a group address") {
			p.Verdict += e.unknownText()
			p.Fix = pingFromIt
		}
		p.Verdict += fmt.Sprintf("; it leaves by %s on %s", portsText(len(e.ports)), switchesText(len(e.hosts)))
	case len(e.silent) > 0:
		p.Verdict = e.silent[0]
		p.Fix = "look at the other end: is vswitchd there, has its tunnel port this key, and is it in the frame's VLAN? vswitchctl doctor tells whether it is reached"
		if strings.Contains(e.silent[0], "where a vswitch is") {
			p.Fix = "vswitchctl drops there, and the VLANs of its tunnel port in show: vlan-not-trunked and vlan-tagged-on-access are what it says of frames that the port does not take"
		}
	case len(e.drops) > 0:
		p.Verdict = "dropped at " + e.drops[0]
		p.Fix = e.help
	case e.more > 0:
		p.Verdict = "where the frame goes was not followed to its end"
		p.Fix = "ask again: a switch follows so many copies a second"
	case e.end:
		p.Verdict = "the way is longer than a probe goes: look for a loop of tunnels and patches"
	default:
		p.Verdict = "the frame leaves nowhere"
	}
	if p.Reached && e.loop == "" && len(e.silent) > 0 {
		p.Verdict += "; " + e.silent[0]
	}
	if e.more > 0 {
		p.Verdict += fmt.Sprintf("; ports more that are not told, nor followed: %d", e.more)
	}
	if !p.Reached && e.flooded != "" && !strings.HasPrefix(e.flooded, "a group address") && !e.known && e.other == "" {
		p.Verdict += "; no switch on the way knows the address"
	}
	if !p.Reached && len(e.down) > 0 {
		p.Verdict += "; " + strings.Join(e.down, "; ")
		p.Fix = "vswitchctl show there says why the port is down, and vswitchctl doctor looks further"
	}
	if !p.Reached && e.other != "" {
		p.Verdict += "; " + e.other
	}
}

const pingFromIt = "the switches learn where it is as soon as it sends something: ping from it once"

// unknownText says which switches do not know where the target is.
func (e *pathEnds) unknownText() string {
	if e.known {
		return ": not every switch knows where it is"
	}
	return ": no switch on the way knows it"
}

func endsOf(p *api.Path) (e pathEnds) {
	e.hosts = map[int]bool{}
	for i := range p.Hops {
		h := &p.Hops[i]
		where := fmt.Sprintf("%s of bridge %s on %s", h.InPort, h.Bridge, h.Host)
		if h.Silent {
			e.silent = append(e.silent, strings.Join(h.Notes, "; "))
			continue
		}
		e.known = e.known || h.Known
		e.more += h.More
		for _, note := range h.Notes {
			switch {
			case strings.HasPrefix(note, "a loop") && e.loop == "":
				e.loop = fmt.Sprintf("bridge %s on %s, by port %s", h.Bridge, h.Host, h.InPort)
			case strings.HasPrefix(note, "not by") && strings.HasSuffix(note, "the port is down"):
				e.down = append(e.down, strings.TrimPrefix(note, "not by ")+" on "+h.Host)
			case strings.HasSuffix(note, "the frame is flooded"):
				e.flooded = note
			case strings.HasPrefix(note, "the address is behind"):
				e.other = fmt.Sprintf("on %s %s", h.Host, note)
			case strings.HasPrefix(note, "the probe goes no further"):
				e.end = true
			}
		}
		for _, o := range h.Outputs {
			if o.Remote == "" {
				bridge := h.Bridge
				if o.Bridge != "" {
					bridge = o.Bridge
				}
				e.ports = append(e.ports, fmt.Sprintf("%s of bridge %s on %s", o.Port, bridge, h.Host))
				e.hosts[i] = true
				e.far = max(e.far, h.Hop)
			}
		}
		for _, x := range h.Drops {
			if e.help == "" {
				e.help = x.Help
			}
			if x.Out || x.Bridge != "" {
				where = fmt.Sprintf("%s on %s", x.Port, h.Host)
			}
			e.drops = append(e.drops, fmt.Sprintf("%s: %s", where, x.Reason))
		}
	}
	return e
}

func afterText(hops int) string {
	switch hops {
	case 0:
		return ", without a tunnel"
	case 1:
		return ", over one tunnel"
	}
	return fmt.Sprintf(", over %d tunnels", hops)
}

func portsText(n int) string {
	if n == 1 {
		return "one port"
	}
	return fmt.Sprintf("%d ports", n)
}

func switchesText(n int) string {
	if n == 1 {
		return "one switch"
	}
	return fmt.Sprintf("%d switches", n)
}
