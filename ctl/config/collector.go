package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// How the ends of sFlow are written.

const (
	sflowPort  = 6343 // IANA: sFlow traffic monitoring
	maxTargets = 16   // collectors of one bridge: each gets every datagram
)

// targets reads a list of addresses with UDP ports, each given once.
func (o *Option) targets(v string) (string, *Error) {
	var list []string
	for _, word := range splitList(v) {
		target, why := parseTarget(word)
		if why != "" {
			return "", o.wrong(word, why)
		}
		if slices.Contains(list, target) {
			return "", o.wrong(word, "is given twice")
		}
		if list = append(list, target); len(list) > maxTargets {
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d collectors there may be", maxTargets))
		}
	}
	if len(list) == 0 {
		return "", o.wrong(v, "names no collector")
	}
	return strings.Join(list, ","), nil
}

// parseTarget reads 10.0.0.9, 10.0.0.9:6343, fd00::9 or [fd00::9]:6343 and returns
// it with its port.
func parseTarget(s string) (target, why string) {
	port := sflowPort
	host, digits, hasPort := s, "", false
	if in, rest, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		host = in
		if digits, hasPort = strings.CutPrefix(rest, ":"); !hasPort && rest != "" {
			return "", "is not an address with a UDP port"
		}
	} else if strings.Count(s, ":") == 1 {
		host, digits, hasPort = strings.Cut(s, ":")
	}
	if hasPort {
		n, ok := decimal(digits)
		if !ok || n < 1 || n > 65535 {
			return "", "has no UDP port of 1 to 65535"
		}
		port = n
	}
	a, why := parseUnicast(host)
	if why != "" {
		return "", why
	}
	return netip.AddrPortFrom(a, uint16(port)).String(), ""
}

// agent reads the name of an interface, or an address.
func (o *Option) agent(v string) (string, *Error) {
	a, why := parseUnicast(v)
	switch {
	case why == "":
		return a.String(), nil
	case a.IsValid(), strings.Contains(v, ":"), strings.Trim(v, "0123456789.") == "":
		return "", o.wrong(v, why) // meant as an address, not as a name
	}
	if why := badName(v, maxInterfaceName); why != "" {
		return "", o.wrong(v, why)
	}
	return v, nil
}
