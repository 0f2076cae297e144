package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
)

// previous reads the result of the plug-ins before this one; nil: there is none.
func previous(n *network) (*types100.Result, error) {
	raw, ok := n.keys["prevResult"]
	if !ok || string(raw) == "null" {
		return nil, nil
	}
	r, err := parseResult(raw, n.version)
	if err != nil {
		return nil, fail(types.ErrDecodingFailure, "prevResult: %v", err)
	}
	return r, nil
}

// parseResult reads a result of a version; one that names none is of the configuration's.
func parseResult(raw []byte, spoken string) (*types100.Result, error) {
	var shape map[string]json.RawMessage
	if err := json.Unmarshal(raw, &shape); err != nil {
		return nil, err
	}
	if shape == nil {
		return nil, fmt.Errorf("it is null")
	}
	// The library's converters follow each entry of these without looking.
	for _, key := range []string{"interfaces", "ips", "routes"} {
		var list []json.RawMessage
		if raw, ok := shape[key]; ok && json.Unmarshal(raw, &list) != nil {
			return nil, fmt.Errorf("%s: %s is not a list", key, quoted(raw))
		}
		for i, one := range list {
			if bytes.Equal(one, []byte("null")) {
				return nil, fmt.Errorf("%s[%d] is null", key, i)
			}
		}
	}
	// A result of before 1.0.0 need not name its version: it is the configuration's.
	shape["cniVersion"], _ = json.Marshal(spoken)
	raw, err := json.Marshal(shape)
	if err != nil {
		return nil, err
	}
	r, err := create.Create(spoken, raw)
	if err != nil {
		return nil, err
	}
	return types100.GetResult(r)
}

// spokenAs turns a result into what the runtime speaks.
func spokenAs(r *types100.Result, spoken string) (types.Result, error) {
	if older, err := version.GreaterThan("1.1.0", spoken); err == nil && older {
		for _, i := range r.Interfaces {
			i.Mtu = 0 // an interface's mtu came with 1.1.0
		}
	}
	out, err := r.GetAsVersion(spoken)
	if err != nil {
		return nil, fail(types.ErrIncompatibleCNIVersion, "result as version %s: %v", spoken, err)
	}
	return out, nil
}

// ipNet is p as the library has it, host bits kept.
func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the other way. IPv4 in IPv6's form is IPv4.
func prefixOf(n net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	a = a.Unmap()
	if bits == 128 && a.Is4() {
		ones, bits = ones-96, 32
	}
	if bits != a.BitLen() || ones < 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// everywhere is the destination of a default route of a's family.
func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
