package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// How the ends of a tunnel are written.

// parseUnicast reads the address of a host, or says what is wrong with it. It has
// no zone: which interface packets leave by is for the routing table to say, so
// an IPv6 link-local address, which needs one, is refused.
func parseUnicast(s string) (a netip.Addr, why string) {
	a, err := netip.ParseAddr(s)
	switch {
	case strings.EqualFold(s, "flow"): // OVS: whatever a packet says
		return a, "is not supported"
	case err != nil:
		return a, "is not an address"
	case a.Zone() != "":
		return a, "has a zone"
	case a.Is4In6():
		return a, "is an IPv4 address written as IPv6"
	case a.IsUnspecified():
		return a, "is no host's address"
	case a.IsMulticast():
		return a, "is a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, "is the broadcast address"
	case a.Is6() && a.IsLinkLocalUnicast():
		return a, "is a link-local address, which needs a zone"
	}
	return a, ""
}

// parseHost reads an address or a host name and returns its canonical spelling:
// RFC 5952's for IPv6, lower case for names. The letters of names are those of
// RFC 1123, section 2.1, whose last label is never a number, lest a misspelled
// address be looked up as a name.
func parseHost(s string) (host, why string) {
	const notAHost = "is not an address or a host name"
	a, why := parseUnicast(s)
	if why == "" {
		return a.String(), ""
	}
	if a.IsValid() || strings.EqualFold(s, "flow") {
		return "", why
	}
	host = strings.ToLower(s)
	if len(host) > 253 {
		return "", notAHost
	}
	var label string
	for label = range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", notAHost
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return "", notAHost
			}
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return "", notAHost
	}
	return host, ""
}

// hosts reads a list of hosts, each given once.
func (o *Option) hosts(v string) (string, *Error) {
	var list []string
	seen := make(map[string]bool)
	for _, word := range splitList(v) {
		host, why := parseHost(word)
		if why != "" {
			return "", o.wrong(word, why)
		}
		if seen[host] {
			return "", o.wrong(word, "is given twice")
		}
		seen[host] = true
		list = append(list, host)
		if len(list) > maxPeers {
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d peers a mesh may have", maxPeers))
		}
	}
	if len(list) == 0 {
		return "", o.wrong(v, "names no host")
	}
	return strings.Join(list, ","), nil
}

// natural reads a decimal number, or one after 0x, as OVS does.
func natural(s string) (int, bool) {
	digits, hex := strings.CutPrefix(strings.ToLower(s), "0x")
	if !hex {
		return decimal(s)
	}
	if strings.ContainsAny(digits, "+-_") {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 48)
	return int(n), err == nil
}

func (o *Option) key(v string) (string, *Error) {
	if strings.EqualFold(v, "flow") {
		return "", o.wrong(v, "is not supported")
	}
	n, ok := natural(v)
	if !ok {
		return "", o.wrong(v, "is not a number")
	}
	if n < o.Min || n > o.Max {
		return "", o.wrong(v, "is out of range")
	}
	return strconv.Itoa(n), nil
}

func (o *Option) intOrWord(v string) (string, *Error) {
	for _, word := range o.Words {
		if v == word {
			return v, nil
		}
	}
	n, ok := natural(v)
	if !ok {
		return "", o.wrong(v, "is not a number or "+orList(o.Words))
	}
	if n < o.Min || n > o.Max {
		return "", o.wrong(v, "is out of range")
	}
	if o.Step > 1 && n%o.Step != 0 {
		return "", o.wrong(v, "has ECN bits, which are always those of the inner packet")
	}
	return strconv.Itoa(n), nil
}
