package config

import (
	"net/netip"
	"slices"
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
	for _, word := range splitList(v) {
		p, why := parsePublish(word)
		if why != "" {
			return nil, word, why
		}
		if slices.ContainsFunc(list, p.clashes) {
			return nil, word, "is a port of the host that is in the list already"
		}
		list = append(list, p)
	}
	if len(list) == 0 && strings.TrimSpace(v) != "" {
		return nil, v, "holds no port"
	}
	return list, "", ""
}

// clashes says whether both want the same port of the host.
func (p Publish) clashes(q Publish) bool {
	return p.Port == q.Port && p.Proto == q.Proto && (!p.Host.IsValid() || !q.Host.IsValid() || p.Host == q.Host)
}
