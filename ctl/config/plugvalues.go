package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// How the values of plugs and pools are read.

// plugValue reads the kinds of value that only plugs and pools have.
func (o *Option) plugValue(v string) (string, *Error) {
	switch o.Kind {
	case Container:
		c, why := parseContainer(v)
		if why == "" && c.Kind == "" {
			why = "does not say what kind of container it is"
		}
		if why != "" {
			return "", o.wrong(v, why)
		}
		return c.String(), nil
	case Interface:
		why := badName(v, maxInterfaceName)
		if v == "lo" {
			why = "is the loopback interface, which is there already"
		}
		if why != "" {
			return "", o.wrong(v, why)
		}
		return v, nil
	case AddressList:
		if slices.Contains(o.Words, v) {
			return v, nil
		}
		return o.each(v, 2, "address", oneOfEachFamily(readAddress))
	case RouteList:
		routes, bad, why := parseRoutes(v)
		if bad != "" {
			return "", o.wrong(bad, why)
		}
		return joinTexts(routes), nil
	case NameList:
		return o.each(v, maxAliases, "name", readLabel)
	case NetworkList:
		return o.each(v, 2, "network", oneOfEachFamily(readNetwork))
	case RangeList:
		return o.each(v, maxExcluded, "address", readRange)
	case PublishList:
		all, bad, why := parsePublished(v)
		if bad != "" {
			return "", o.wrong(bad, why)
		}
		return joinTexts(all), nil
	}
	panic("config: kind without a reader")
}

func joinTexts[T fmt.Stringer](all []T) string {
	words := make([]string, len(all))
	for i, x := range all {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}

func orWords(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return ", or " + orList(words)
}

// each reads the words of a list, each kept once, in the order given: read returns a
// word's canonical spelling, or what is wrong with it.
func (o *Option) each(v string, limit int, what string, read func(word string) (text, why string)) (string, *Error) {
	var list []string
	had := make(map[string]bool)
	for _, word := range splitList(v) {
		text, why := read(word)
		switch {
		case why != "":
			return "", o.wrong(word, why)
		case had[text]:
			continue
		case len(list) == limit:
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d there may be", limit))
		}
		had[text] = true
		list = append(list, text)
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no "+what)
	}
	return strings.Join(list, ","), nil
}

// oneOfEachFamily lets read have one word of IPv4 and one of IPv6.
func oneOfEachFamily(read func(word string) (text string, v4 bool, why string)) func(string) (string, string) {
	var had [2]bool
	return func(word string) (string, string) {
		text, v4, why := read(word)
		at := &had[btoi(v4)]
		if why == "" && *at {
			why = "is the second of its family"
		}
		*at = true
		return text, why
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func readAddress(word string) (text string, v4 bool, why string) {
	a, why := parseUnicast(word)
	return a.String(), a.Is4(), why
}

func readNetwork(word string) (text string, v4 bool, why string) {
	p, err := netip.ParsePrefix(word)
	switch {
	case err != nil:
		why = "is not a network"
	case p != p.Masked():
		why = fmt.Sprintf("is an address in a network, which is %s", p.Masked())
	case p.Addr().Is4In6() || p.Addr().IsMulticast() || p.Bits() == 0:
		why = "is not a network that hosts can have"
	}
	return p.String(), p.Addr().Is4(), why
}

func readLabel(word string) (text, why string) {
	if text = strings.ToLower(word); !isLabel(text) {
		why = "is not a name"
	}
	return text, why
}

func readRange(word string) (text, why string) {
	_, text, ok := parseRange(word)
	if !ok {
		why = "is not an address, a network or a range"
	}
	return text, why
}

// parseRoutes reads routes separated by commas, or says which is wrong and why.
func parseRoutes(v string) (list []Route, bad, why string) {
	const notOne = "is not a route"
	had := make(map[Route]bool)
	for part := range strings.SplitSeq(v, ",") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		if words[0] == "default" {
			return nil, part, notOne // that is gateway's
		}
		p, err := netip.ParsePrefix(words[0])
		if err != nil {
			a, err := netip.ParseAddr(words[0])
			if err != nil || a.Zone() != "" {
				return nil, part, notOne
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 || p.Addr().IsMulticast() {
			return nil, part, notOne
		}
		r := Route{Dst: p}
		switch {
		case len(words) == 1:
		case len(words) == 3 && words[1] == "via":
			via, err := netip.ParseAddr(words[2])
			if err != nil || via.Is4() != p.Addr().Is4() || via.Is4In6() || via.Zone() != "" || via.IsUnspecified() || via.IsMulticast() {
				return nil, part, notOne
			}
			r.Via = via
		default:
			return nil, part, notOne
		}
		switch {
		case had[r]:
			continue
		case len(list) == maxRoutes:
			return nil, strings.TrimSpace(part), fmt.Sprintf("is one more than the %d routes there may be", maxRoutes)
		}
		had[r] = true
		list = append(list, r)
	}
	if len(list) == 0 && v != "" {
		return nil, v, notOne
	}
	return list, "", ""
}

// isLabel takes a label of a host name (RFC 1123, section 2.1), and underscores, which
// containers' names have.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// parseRange reads an address, a network, or two addresses with a dash between, and
// returns the canonical spelling too.
func parseRange(s string) (r AddrRange, text string, ok bool) {
	if first, last, two := strings.Cut(s, "-"); two {
		a, err1 := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err1 != nil || err2 != nil || a.Is4() != b.Is4() || a.Is4In6() || b.Is4In6() || b.Less(a) || a.Zone() != "" || b.Zone() != "" {
			return r, "", false
		}
		return AddrRange{a, b}, a.String() + "-" + b.String(), true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() {
			return r, "", false
		}
		p = p.Masked()
		return AddrRange{p.Addr(), lastOf(p)}, p.String(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return r, "", false
	}
	return AddrRange{a, a}, a.String(), true
}

// lastOf is the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
