package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// How published ports are read.

// ParsePublish reads [HOST:]PORT:PORT[/tcp|/udp].
func ParsePublish(s string) (Publish, error) {
	p, why := parsePublish(s)
	if why != "" {
		return Publish{}, find("publish").wrong(s, why)
	}
	return p, nil
}

func parsePublish(s string) (p Publish, why string) {
	const notOne = "is not a published port"
	rest, proto, given := strings.Cut(s, "/")
	if !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		return p, "has a protocol other than tcp and udp"
	}
	p.Proto = proto
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return p, notOne
	}
	to, rest := rest[i+1:], rest[:i]
	host := ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, rest = rest[:i], rest[i+1:]
		if in, ok := strings.CutPrefix(host, "["); ok {
			host, ok = strings.CutSuffix(in, "]")
			if !ok {
				return p, notOne
			}
		} else if strings.Contains(host, ":") {
			return p, "has an IPv6 address without brackets"
		}
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.IsMulticast() {
			return p, "does not begin with an address of the host"
		}
		if !a.IsUnspecified() {
			p.Host = a
		}
	}
	for _, x := range []struct {
		text string
		to   *uint16
	}{{rest, &p.Port}, {to, &p.To}} {
		n, ok := decimal(x.text)
		if !ok || n < 1 || n > 65535 {
			return p, "has no port of 1 to 65535"
		}
		*x.to = uint16(n)
	}
	return p, ""
}

// parsePublished reads a list, or says which is wrong and why.
func parsePublished(v string) (list []Publish, bad, why string) {
	taken := make(bindings)
	for _, word := range splitList(v) {
		p, why := parsePublish(word)
		if why != "" {
			return nil, word, why
		}
		if _, clash := taken.add(p, ""); clash {
			return nil, word, "is a port of the host that is in the list already"
		}
		if len(list) == maxPublished {
			return nil, word, fmt.Sprintf("is one more than the %d published ports there may be", maxPublished)
		}
		list = append(list, p)
	}
	if len(list) == 0 && strings.TrimSpace(v) != "" {
		return nil, v, "holds no port"
	}
	return list, "", ""
}

// hostPort is a port of the host at one of its addresses.
type hostPort struct {
	host  netip.Addr // the zero Addr is any
	port  uint16
	proto string
}

// bindings are ports of the host that are published, by who has them. A port that is
// published at any address has an entry for any; one at an address has that one and, being
// the first, one for some. So an add costs the same however many there are.
type bindings map[hostPort]string

// someHost stands for the first address at which a port is published: nobody publishes at
// the unspecified one, which is read as any.
var someHost = netip.IPv4Unspecified()

// add publishes p, unless somebody has that port of the host, who is returned then.
func (h bindings) add(p Publish, who string) (first string, clash bool) {
	atAny, atSome := hostPort{netip.Addr{}, p.Port, p.Proto}, hostPort{someHost, p.Port, p.Proto}
	if first, clash = h[atAny]; clash {
		return first, true
	}
	if !p.Host.IsValid() {
		if first, clash = h[atSome]; !clash {
			h[atAny] = who
		}
		return first, clash
	}
	at := hostPort{p.Host, p.Port, p.Proto}
	if first, clash = h[at]; clash {
		return first, true
	}
	h[at] = who
	if _, there := h[atSome]; !there {
		h[atSome] = who
	}
	return "", false
}
