package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// How values are read. Each kind has one canonical spelling, so that equal
// settings are equal strings; what people write otherwise is accepted here and
// nowhere else.

const (
	maxValue     = 1 << 18 // bytes of one option's value: 16384 port names
	maxAddresses = 64      // of one interface
)

// Canonical reads a value as somebody typed it and returns its canonical
// spelling. The error is an *Error without a Path.
func (o *Option) Canonical(value string) (string, error) {
	s, e := o.canonical(value)
	if e != nil {
		return "", e
	}
	return s, nil
}

func (o *Option) canonical(value string) (string, *Error) {
	v := strings.TrimSpace(value)
	if v == "" {
		return "", o.wrong(value, "has no value")
	}
	if len(v) > maxValue {
		return "", o.wrong(value, fmt.Sprintf("is longer than %d bytes", maxValue))
	}
	switch o.Kind {
	case Bool:
		switch strings.ToLower(v) {
		case "true", "on", "yes", "1":
			return "true", nil
		case "false", "off", "no", "0":
			return "false", nil
		}
		return "", o.wrong(v, "is not a bool")
	case Int:
		return o.number(v, "is not a number")
	case VLAN:
		n, ok := decimal(v)
		if !ok || n < o.Min || n > o.Max {
			return "", o.wrong(v, "is not a VLAN")
		}
		return strconv.Itoa(n), nil
	case Seconds:
		if d, err := time.ParseDuration(v); err == nil && d >= 0 && d%time.Second == 0 {
			v = strconv.Itoa(int(d / time.Second))
		}
		return o.number(v, "is not a time in seconds")
	case Size:
		n, ok := parseSize(v)
		if !ok {
			return "", o.wrong(v, "is not a size")
		}
		if n < o.Min || n > o.Max {
			return "", o.wrong(v, "is out of range")
		}
		return sizeText(n), nil
	case Enum:
		if slices.Contains(o.Words, v) {
			return v, nil
		}
		if o.Name == "vlan_mode" && v == "dot1q-tunnel" {
			return "", o.wrong(v, "is not supported yet")
		}
		e := o.wrong(v, "is not a "+o.Name)
		e.Message += didYouMean(v, o.Words)
		return "", e
	case VLANList:
		ranges, bad := parseVLANs(v, o.Min, o.Max)
		if bad != "" {
			return "", o.wrong(bad, "is not a VLAN or a range of VLANs")
		}
		return vlanText(ranges), nil
	case CIDRList:
		return o.addresses(v)
	case MAC:
		mac, ok := parseMAC(v)
		if !ok {
			return "", o.wrong(v, "is not a unicast MAC address")
		}
		return mac, nil
	case PortName, BridgeName:
		if why := badName(v, maxPatchName); why != "" {
			return "", o.wrong(v, why)
		}
		return v, nil
	case PortList:
		names := splitList(v)
		for _, n := range names {
			if _, _, ok := SplitMeshPort(n); ok {
				continue
			}
			if why := badName(n, maxPatchName); why != "" {
				return "", o.wrong(n, why)
			}
		}
		if len(names) == 0 {
			return "", o.wrong(value, "names no port")
		}
		slices.Sort(names)
		return strings.Join(slices.Compact(names), ","), nil
	case Targets:
		return o.targets(v)
	case Agent:
		return o.agent(v)
	case File:
		return o.file(v)
	case Key:
		return o.key(v)
	case IntOrWord:
		return o.intOrWord(v)
	case Address:
		a, why := parseUnicast(v)
		if why != "" {
			return "", o.wrong(v, why)
		}
		return a.String(), nil
	case Host:
		host, why := parseHost(v)
		if why != "" {
			return "", o.wrong(v, why)
		}
		return host, nil
	case HostList:
		return o.hosts(v)
	case Account:
		if !isAccount(v) {
			return "", o.wrong(v, "is not a name or number of a user or group")
		}
		return v, nil
	case Container, Interface, AddressList, RouteList, NameList, NetworkList, RangeList, PublishList:
		return o.plugValue(v)
	}
	panic("config: kind without a reader")
}

// wrong is the error for a value: `"5000" is not a VLAN: want 0 to 4094`.
func (o *Option) wrong(value, what string) *Error {
	message := fmt.Sprintf("%s %s: want %s", shown(value), what, o.Allowed())
	if thing, ok := strings.CutPrefix(what, "is not "); ok && strings.HasPrefix(o.Allowed(), thing) {
		message = fmt.Sprintf("%s is not %s", shown(value), o.Allowed()) // once is enough
	}
	return &Error{Value: value, Allowed: o.Allowed(), Message: message}
}

func (o *Option) number(v, what string) (string, *Error) {
	n, ok := decimal(v)
	if !ok {
		return "", o.wrong(v, what)
	}
	if n < o.Min || n > o.Max {
		return "", o.wrong(v, "is out of range")
	}
	return strconv.Itoa(n), nil
}

func (o *Option) addresses(v string) (string, *Error) {
	var list []string
	for _, word := range splitList(v) {
		if slices.Contains(o.InPlug, word) {
			if !slices.Contains(list, word) {
				list = append(list, word)
			}
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			if _, err := netip.ParseAddr(word); err == nil {
				return "", o.wrong(word, "has no prefix length")
			}
			return "", o.wrong(word, "is not an address with a prefix length")
		}
		a := p.Addr()
		if a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return "", o.wrong(word, "is not an address an interface can have")
		}
		// String writes IPv6 in the one form of RFC 5952.
		if s := p.String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
		if len(list) > maxAddresses {
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d addresses an interface may have", maxAddresses))
		}
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no address")
	}
	return strings.Join(list, ","), nil
}

func (o *Option) file(v string) (string, *Error) {
	const pathMax = 4095 // PATH_MAX less its final zero
	switch {
	case !strings.HasPrefix(v, "/"):
		return "", o.wrong(v, "is not an absolute path")
	case strings.HasSuffix(v, "/"):
		return "", o.wrong(v, "names a directory")
	case !printable(v):
		return "", o.wrong(v, "holds characters that cannot be printed")
	}
	v = path.Clean(v)
	if len(v) > pathMax {
		return "", o.wrong(v, fmt.Sprintf("is longer than %d bytes", pathMax))
	}
	return v, nil
}

// splitList splits at commas and white space, leaving out what is empty.
func splitList(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// decimal reads digits and nothing else: no sign, no 0x, no 1_000. A leading zero
// is still decimal: who writes 010 for a VLAN means ten.
func decimal(s string) (int, bool) {
	if s == "" || len(s) > 15 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

const sizeUnits = "kMGT"

// parseSize reads bytes: 4096, 64k, 10M, 1G. A suffix of either case, with or
// without B or iB behind it, counts by 1024.
func parseSize(s string) (int, bool) {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB ")
	suffix := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	n, ok := decimal(digits)
	if !ok {
		return 0, false
	}
	suffix = strings.TrimSuffix(strings.TrimSuffix(suffix, "b"), "i")
	if suffix == "" {
		return n, !strings.ContainsAny(s[len(digits):], "iI")
	}
	power := strings.Index(strings.ToLower(sizeUnits), suffix)
	if len(suffix) != 1 || power < 0 || n > math.MaxInt>>(10*(power+1)) {
		return 0, false
	}
	return n << (10 * (power + 1)), true
}

func sizeText(n int) string {
	unit := ""
	for i := 0; i < len(sizeUnits) && n != 0 && n%1024 == 0; i++ {
		n /= 1024
		unit = sizeUnits[i : i+1]
	}
	return strconv.Itoa(n) + unit
}

// Range is VLANs First to Last, both included.
type Range struct{ First, Last uint16 }

// parseVLANs reads 10,20-30 and returns sorted ranges that do not touch, or the
// word that is wrong.
func parseVLANs(v string, low, high int) (ranges []Range, bad string) {
	var in [4096]bool
	words := splitList(v)
	for _, word := range words {
		from, to, isRange := strings.Cut(word, "-")
		if !isRange {
			to = from
		}
		first, ok1 := decimal(from)
		last, ok2 := decimal(to)
		if !ok1 || !ok2 || first > last || first < low || last > high {
			return nil, word
		}
		for i := first; i <= last; i++ {
			in[i] = true
		}
	}
	if len(words) == 0 {
		return nil, v
	}
	for i := 0; i < len(in); i++ {
		if !in[i] {
			continue
		}
		first := i
		for i+1 < len(in) && in[i+1] {
			i++
		}
		ranges = append(ranges, Range{uint16(first), uint16(i)})
	}
	return ranges, ""
}

func vlanText(ranges []Range) string {
	var b strings.Builder
	for i, r := range ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d", r.First)
		if r.Last > r.First {
			fmt.Fprintf(&b, "-%d", r.Last)
		}
	}
	return b.String()
}

// parseMAC reads an Ethernet address in any of the usual notations and returns
// it in lower case with colons. Multicast and zero are refused.
func parseMAC(s string) (string, bool) {
	hw, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 || slices.Max(hw) == 0 {
		return "", false
	}
	return hw.String(), true
}

const (
	maxInterfaceName = 15 // IFNAMSIZ less its final zero
	maxPatchName     = 63 // patch and tunnel ports and mirrors are no interfaces
	maxMeshName      = 31
)

// nameLimit is the length of the longest name of a port, in bytes.
func (o Object) nameLimit() int {
	if o == PatchPort || o.IsTunnel() {
		return maxPatchName
	}
	return maxInterfaceName
}

// badName says what is wrong with a name, or nothing. The kernel's
// dev_valid_name (net/core/dev.c) refuses . and .., '/', ':' and what its
// isspace takes for space, which includes the byte 0xA0. Beyond that: a '%' makes
// the kernel choose a name itself, a ',' separates the names of a list, and
// what cannot be printed cannot be written in a document.
func badName(name string, limit int) string {
	switch {
	case name == "":
		return "is not a name"
	case len(name) > limit:
		return fmt.Sprintf("is not a name of at most %d bytes", limit)
	case name == "." || name == "..":
		return "is not a name the kernel takes"
	case !printable(name):
		return "is not a name: it holds characters that cannot be printed"
	}
	for _, c := range []byte(name) {
		switch c {
		case '/', ':', '%', ',', ' ', 0xa0:
			return "is not a name: it holds one of / : % , or a space"
		}
	}
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return "is not a name: it holds one of / : % , or a space"
	}
	return ""
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// isAccount takes a number below the one that means none (2^32-1), and names as
// shadow-utils takes them: 32 letters, digits, dots, dashes and underscores, not
// a dash first, and not digits only.
func isAccount(s string) bool {
	if n, ok := decimal(s); ok {
		return n < math.MaxUint32
	}
	if len(s) > 32 || s[0] == '-' || s == "." || s == ".." {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
}
