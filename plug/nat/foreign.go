package nat

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// A firewall of the host's own, such as ufw's or firewalld's, may drop what gateways forward, and
// the questions for names that containers ask the host. It is nobody's to change, so it is told
// about, with what to allow. What its rules decide in the end is not reckoned: whoever wrote a rule
// about a gateway's interface or subnet, in a chain that the packet may come to, has thought of it.

// droppingChain is somebody's base chain that drops what no rule of it accepts.
type droppingChain struct {
	table    string // with its family, as nft(8) says it
	chain    string
	v4, v6   bool
	input    bool // of what is for the host, not of what is forwarded
	dnat     bool // accepts what is published all the same
	mentions func(g Gateway) bool
	advice   string // with %[1]s for the interface
}

// What to do about the firewalls that have a name for it.
const (
	adviceFirewalld  = "firewall-cmd --permanent --zone=trusted --add-interface=%[1]s; firewall-cmd --reload"
	adviceUFWForward = "ufw route allow in on %[1]s; ufw route allow out on %[1]s"
	adviceUFWInput   = "ufw allow in on %[1]s to any port 53"
)

func adviceUFW(input bool) string {
	if input {
		return adviceUFWInput
	}
	return adviceUFWForward
}

// obstacle is a dropping chain in a gateway's way.
type obstacle struct {
	ifname    string
	published bool // it drops what is published, too
	err       error
}

// obstacles lists what foreign firewalls drop of gateways, one of each kind a gateway.
func (s *surroundings) obstacles(gateways []Gateway) (all []obstacle) {
	for _, g := range gateways {
		v4, v6 := families([]Gateway{g})
		var first droppingChain
		for _, input := range []bool{false, true} {
			if g.Internal && !input || !g.Names && input {
				continue
			}
			i := slices.IndexFunc(s.drops, func(d droppingChain) bool {
				return d.input == input && (v4 && d.v4 || v6 && d.v6) && !d.mentions(g)
			})
			if i < 0 || s.drops[i].advice != "" && s.drops[i].advice == first.advice {
				continue // one advice is good for both
			}
			first = s.drops[i]
			all = append(all, obstacle{g.Interface, !input && !first.dnat, first.explain(g.Interface)})
		}
	}
	return all
}

func (d droppingChain) explain(ifname string) error {
	what, advice := "what is forwarded", fmt.Sprintf("let it accept what comes in by %[1]s and what goes out by %[1]s", ifname)
	if d.input {
		what, advice = "questions for names", fmt.Sprintf("let it accept port 53, UDP and TCP, of what comes in by %s", ifname)
	}
	if d.advice != "" {
		advice += " (" + fmt.Sprintf(d.advice, ifname) + ")"
	}
	return fmt.Errorf("%w %s (chain %s of table %s), and has no rule for %s: %s", ErrBlocked, what, d.chain, d.table, ifname, advice)
}

// dropping says whether a chain drops by default, and is not Docker's.
func (s *surroundings) dropping(c *nftables.Conn, all []*nftables.Chain, ch *nftables.Chain, ours string) (droppingChain, bool) {
	t := ch.Table
	families := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}
	if families[t.Family] == "" || t.Family == nftables.TableFamilyINet && t.Name == ours {
		return droppingChain{}, false
	}
	if ch.Type != nftables.ChainTypeFilter || ch.Hooknum == nil {
		return droppingChain{}, false
	}
	input := *ch.Hooknum == *nftables.ChainHookInput
	if !input && *ch.Hooknum != *nftables.ChainHookForward {
		return droppingChain{}, false
	}
	// firewalld's policy is to accept; its last rule rejects.
	firewalld := t.Name == "firewalld" && (ch.Name == "filter_FORWARD" || ch.Name == "filter_INPUT")
	if !firewalld && (ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop) {
		return droppingChain{}, false
	}
	v4, v6 := t.Family != nftables.TableFamilyIPv6, t.Family != nftables.TableFamilyIPv4
	if !input && t.Name == "filter" && slices.ContainsFunc(s.docker, func(x *xtables) bool { return !x.legacy && x.v6 == v6 && v4 != v6 }) {
		return droppingChain{}, false
	}
	d := droppingChain{table: families[t.Family] + " " + t.Name, chain: ch.Name, v4: v4, v6: v6, input: input, dnat: firewalld}
	switch {
	case firewalld:
		d.advice = adviceFirewalld
	case slices.ContainsFunc(all, func(a *nftables.Chain) bool {
		return a.Table.Family == t.Family && a.Table.Name == t.Name && strings.HasPrefix(a.Name, "ufw")
	}):
		d.advice = adviceUFW(input)
	}
	said := s.compared(c, all, ch)
	d.mentions = func(g Gateway) bool { return said.about(g, input) }
	return d, true
}

// comparisons are what rules compare interfaces, addresses and ports with.
type comparisons struct {
	names []string // of interfaces; one that ends in + is the beginning of names
	addrs [][]byte // addresses, or the bytes of them that the prefix has
	dns   bool     // the port of questions for names is among them
	all   bool     // not all rules could be read: there may be any
}

func (c comparisons) about(g Gateway, input bool) bool {
	if c.all || input && c.dns {
		return true
	}
	if slices.ContainsFunc(c.names, func(n string) bool {
		begin, wild := strings.CutSuffix(n, "+")
		return n == g.Interface || wild && strings.HasPrefix(g.Interface, begin)
	}) {
		return true
	}
	return slices.ContainsFunc(g.Subnets, func(s netip.Prefix) bool {
		a := s.Addr().AsSlice()
		return slices.ContainsFunc(c.addrs, func(b []byte) bool {
			return bytes.Equal(a, b) || len(b) > 1 && s.Bits() == len(b)*8 && bytes.Equal(a[:len(b)], b)
		})
	})
}

// compared collects what the rules that a packet may meet in a base chain compare it with.
func (s *surroundings) compared(c *nftables.Conn, all []*nftables.Chain, base *nftables.Chain) (said comparisons) {
	t := base.Table
	sets := map[string]*nftables.Set{}
	list, err := c.GetSets(t)
	said.all = err != nil
	for _, set := range list {
		sets[set.Name] = set
	}
	seen := map[string]bool{}
	next := []string{base.Name}
	visit := func(v *expr.Verdict) {
		if v != nil && v.Chain != "" && !seen[v.Chain] {
			next = append(next, v.Chain)
		}
	}
	for ; len(next) > 0; next = next[1:] {
		i := slices.IndexFunc(all, func(a *nftables.Chain) bool {
			return a.Table.Family == t.Family && a.Table.Name == t.Name && a.Name == next[0]
		})
		if seen[next[0]] || i < 0 {
			continue
		}
		seen[next[0]] = true
		rules, err := c.GetRules(t, all[i])
		said.all = said.all || err != nil // an expression that nobody here knows
		for _, r := range rules {
			var loaded []expr.Any // what is compared next
			for _, e := range r.Exprs {
				switch is := e.(type) {
				case *expr.Meta, *expr.Payload:
					loaded = append(loaded, is)
				case *expr.Cmp:
					said.take(loaded, is.Data)
					loaded = nil
				case *expr.Lookup:
					for _, el := range said.elements(c, sets[is.SetName]) {
						said.take(loaded, el.Key)
						visit(el.VerdictData)
					}
					loaded = nil
				case *expr.Range:
					for _, l := range loaded {
						said.within(l, is.FromData, is.ToData)
					}
					loaded = nil
				case *expr.Match: // of iptables
					said.match(is)
				case *expr.Verdict:
					visit(is)
				}
			}
		}
	}
	return said
}

// elements reads a set that a rule looks into. A large one of somebody's, of addresses that he
// shuts out, is not read.
func (c *comparisons) elements(conn *nftables.Conn, set *nftables.Set) []nftables.SetElement {
	if set == nil || !set.Anonymous && !strings.HasPrefix(set.Name, "__") && !strings.Contains(set.KeyType.Name, typeName.Name) {
		return nil
	}
	all, err := conn.GetSetElements(set)
	c.all = c.all || err != nil
	return all
}

// take notes what is compared with what was loaded; a key of several parts has each padded to
// a register.
func (c *comparisons) take(loaded []expr.Any, data []byte) {
	for _, l := range loaded {
		part := data
		size := 4
		switch is := l.(type) {
		case *expr.Meta:
			if is.Key == expr.MetaKeyIIFNAME || is.Key == expr.MetaKeyOIFNAME {
				size = typeNameLen
			}
		case *expr.Payload:
			size = (int(is.Len) + 3) / 4 * 4
		}
		if len(loaded) > 1 {
			part, data = data[:min(size, len(data))], data[min(size, len(data)):]
		}
		c.one(l, part)
	}
}

const typeNameLen = 16 // IFNAMSIZ

func (c *comparisons) one(loaded expr.Any, data []byte) {
	switch is := loaded.(type) {
	case *expr.Meta:
		switch is.Key {
		case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME:
			name, _, whole := bytes.Cut(data, []byte{0})
			if !whole && len(data) < typeNameLen { // that much of it is compared
				name = append(bytes.Clone(name), '+')
			}
			c.names = append(c.names, string(name))
		case expr.MetaKeyIIF, expr.MetaKeyOIF:
			if len(data) == 4 {
				if link, err := net.InterfaceByIndex(int(binaryutil.NativeEndian.Uint32(data))); err == nil {
					c.names = append(c.names, link.Name)
				}
			}
		}
	case *expr.Payload:
		switch {
		case is.Base == expr.PayloadBaseNetworkHeader:
			c.addrs = append(c.addrs, data)
		case is.Base == expr.PayloadBaseTransportHeader && is.Offset == dport && len(data) >= 2:
			c.dns = c.dns || binary.BigEndian.Uint16(data) == portDNS
		}
	}
}

// within notes a range of ports.
func (c *comparisons) within(loaded expr.Any, from, to []byte) {
	p, ok := loaded.(*expr.Payload)
	if ok && p.Base == expr.PayloadBaseTransportHeader && p.Offset == dport && len(from) >= 2 && len(to) >= 2 {
		c.dns = c.dns || binary.BigEndian.Uint16(from) <= portDNS && portDNS <= binary.BigEndian.Uint16(to)
	}
}

const portDNS = 53

func (c *comparisons) match(m *expr.Match) {
	var to [2]uint16
	switch is := m.Info.(type) {
	case *xt.Tcp:
		to = is.DstPorts
	case *xt.Udp:
		to = is.DstPorts
	}
	c.dns = c.dns || to[0] <= portDNS && portDNS <= to[1] && to != [2]uint16{0, 0xffff} // which is any
}

// droppingLegacy lists what iptables' own tables drop by default.
func (x *xtables) droppingLegacy() (drops []droppingChain) {
	ufw := slices.ContainsFunc(x.rules, func(r string) bool { return strings.HasPrefix(r, "-N ufw") })
	for _, chain := range []string{"FORWARD", "INPUT"} {
		input := chain == "INPUT"
		if x.there && !input || !slices.Contains(x.rules, "-P "+chain+" DROP") {
			continue
		}
		said := x.compared(chain)
		d := droppingChain{table: x.program() + " filter", chain: chain, v4: !x.v6, v6: x.v6, input: input,
			mentions: func(g Gateway) bool { return said.about(g, input) }}
		if ufw {
			d.advice = adviceUFW(input)
		}
		drops = append(drops, d)
	}
	return drops
}

// compared is that of surroundings, read from what -S prints.
func (x *xtables) compared(base string) (said comparisons) {
	seen := map[string]bool{}
	for next := []string{base}; len(next) > 0; next = next[1:] {
		if seen[next[0]] {
			continue
		}
		seen[next[0]] = true
		for _, r := range x.rules {
			w := strings.Fields(r)
			if len(w) < 2 || w[0] != "-A" || w[1] != next[0] {
				continue
			}
			for i := 2; i+1 < len(w); i++ {
				switch w[i] {
				case "-j", "-g":
					next = append(next, w[i+1])
				case "-i", "-o":
					said.names = append(said.names, w[i+1])
				case "-s", "-d":
					if p, err := netip.ParsePrefix(w[i+1]); err == nil {
						said.addrs = append(said.addrs, p.Addr().AsSlice())
					}
				case "--dport", "--dports":
					said.dns = said.dns || slices.ContainsFunc(strings.Split(w[i+1], ","), holdsDNS)
				}
			}
		}
	}
	return said
}

// holdsDNS says whether a port of iptables', or a range of them, is or has that of questions.
func holdsDNS(ports string) bool {
	from, to, _ := strings.Cut(ports, ":")
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(cmp.Or(to, from))
	return err1 == nil && err2 == nil && first <= portDNS && portDNS <= last
}
