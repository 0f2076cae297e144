package nat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What else filters on the host.
//
// A packet passes the base chains of all tables, and a drop in any of them is final: no
// rule of ours can undo Docker's policy of dropping what is forwarded. Docker has a chain for
// exactly this, DOCKER-USER, which it never changes after it made it. In it go, for
// each gateway and family,
//
//	-i br0 -j ACCEPT
//	-o br0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
//
// behind whatever users have put there, so that what they drop is dropped. The second is
// what may come in by our own rules, no more; a gateway that does not masquerade, or is an uplink, takes
// new connections, and has it without the condition. The first is wider than need be by one
// thing: it lets containers reach what Docker's bridges would keep to themselves. There
// our own table drops, which knows those bridges from Docker's rules.
//
// No other firewall has such a chain, and none is changed.

const dockerChain = "DOCKER-USER"

// surroundings is what of others' rules matters to us.
type surroundings struct {
	docker []*xtables      // where Docker's chain is
	drops  []droppingChain // base chains that forward nothing by default
}

// droppingChain is somebody's chain at the forward hook.
type droppingChain struct {
	table    string // with its family, as nft(8) says it
	chain    string
	v4, v6   bool
	mentions func(ifname string) bool // a rule names the interface
	advice   string                   // with %[1]s for the interface
}

// lookAround reads the host's rules; ours is the table of that name. It runs no program
// where Docker's chain is not. With an error, it is what could be read.
func lookAround(ours string) (*surroundings, error) {
	s := &surroundings{}
	var all []*nftables.Chain
	c, err := open()
	if err == nil {
		defer c.CloseLasting()
		all, err = c.ListChains()
	}
	if err != nil && !noNFTables(err) {
		return s, fmt.Errorf("list chains: %w", err)
	}
	var errs []error
	for _, ch := range all {
		t := ch.Table
		v6 := t.Family == nftables.TableFamilyIPv6
		if (v6 || t.Family == nftables.TableFamilyIPv4) && t.Name == "filter" && ch.Name == dockerChain {
			x := &xtables{v6: v6}
			if err := x.load(); err != nil {
				errs = append(errs, err)
				continue
			}
			s.docker = append(s.docker, x)
		}
	}
	for _, ch := range all {
		if d, ok := s.dropping(c, all, ch, ours); ok {
			s.drops = append(s.drops, d)
		}
	}
	return s, errors.Join(append(errs, s.lookAtLegacy())...)
}

// lookAtLegacy reads what iptables wrote before it wrote nftables, in a kernel that has it.
func (s *surroundings) lookAtLegacy() error {
	for _, v6 := range []bool{false, true} {
		if !hasLegacy(v6) {
			continue
		}
		x := &xtables{v6: v6, legacy: true}
		if err := x.load(); err != nil {
			return err
		}
		if x.there {
			s.docker = append(s.docker, x)
			continue
		}
		if slices.Contains(x.rules, "-P FORWARD DROP") {
			s.drops = append(s.drops, droppingChain{
				table: x.program() + " filter", chain: "FORWARD", v4: !v6, v6: v6, mentions: x.mentions, advice: x.advice(),
			})
		}
	}
	return nil
}

// dropping says whether a chain forwards nothing by default, and is not Docker's.
func (s *surroundings) dropping(c *nftables.Conn, all []*nftables.Chain, ch *nftables.Chain, ours string) (droppingChain, bool) {
	t := ch.Table
	families := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}
	if families[t.Family] == "" || t.Family == nftables.TableFamilyINet && t.Name == ours {
		return droppingChain{}, false
	}
	if ch.Type != nftables.ChainTypeFilter || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward {
		return droppingChain{}, false
	}
	// firewalld's policy is to accept; its last rule rejects.
	firewalld := t.Name == "firewalld" && ch.Name == "filter_FORWARD"
	if !firewalld && (ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop) {
		return droppingChain{}, false
	}
	v4, v6 := t.Family != nftables.TableFamilyIPv6, t.Family != nftables.TableFamilyIPv4
	if t.Name == "filter" && slices.ContainsFunc(s.docker, func(x *xtables) bool { return !x.legacy && x.v6 == v6 && v4 != v6 }) {
		return droppingChain{}, false
	}
	d := droppingChain{table: families[t.Family] + " " + t.Name, chain: ch.Name, v4: v4, v6: v6}
	switch {
	case firewalld:
		d.advice = "firewall-cmd --zone=trusted --add-interface=%[1]s"
	case slices.ContainsFunc(all, func(a *nftables.Chain) bool {
		return a.Table.Family == t.Family && a.Table.Name == t.Name && strings.HasPrefix(a.Name, "ufw")
	}):
		d.advice = "ufw route allow in on %[1]s; ufw route allow out on %[1]s"
	}
	names := compared(c, all, t)
	d.mentions = func(ifname string) bool { return names[ifname] }
	return d, true
}

// compared collects what the rules of a table compare anything with, as text: among it are
// interfaces' names. Whoever wrote a rule about an interface has thought of it.
func compared(c *nftables.Conn, all []*nftables.Chain, t *nftables.Table) map[string]bool {
	texts := map[string]bool{}
	for _, ch := range all {
		if ch.Table.Family != t.Family || ch.Table.Name != t.Name {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			continue // an expression that nobody here knows
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if is, ok := e.(*expr.Cmp); ok {
					texts[string(bytes.TrimRight(is.Data, "\x00"))] = true
				}
			}
		}
	}
	return texts
}

// blocked says, by interface, for which gateways a foreign firewall forwards nothing.
func (s *surroundings) blocked(gateways []Gateway) map[string]error {
	why := map[string]error{}
	for _, g := range gateways {
		if g.Internal {
			continue
		}
		v4, v6 := families([]Gateway{g})
		for _, d := range s.drops {
			if why[g.Interface] != nil || !(v4 && d.v4 || v6 && d.v6) || d.mentions(g.Interface) {
				continue
			}
			advice := fmt.Sprintf("let it accept what comes in by %[1]s and what goes out by %[1]s", g.Interface)
			if d.advice != "" {
				advice += " (" + fmt.Sprintf(d.advice, g.Interface) + ")"
			}
			why[g.Interface] = fmt.Errorf("%w (chain %s of table %s), and has no rule for %s: %s", ErrBlocked, d.chain, d.table, g.Interface, advice)
		}
	}
	return why
}

// dockerBridges lists the bridges that Docker isolates: its own chains name each, those of
// internal networks too, which have no rule that lets anything in.
//
//	-A FORWARD -o docker0 -j DOCKER
//	-A DOCKER-BRIDGE -o docker0 -j DOCKER                                 since Docker 28
//	-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o br-0c4f -j DROP     internal
//	-A DOCKER-INTERNAL ! -s 172.18.0.0/16 -o br-0c4f -j DROP              since Docker 28
func (s *surroundings) dockerBridges() []string {
	var names []string
	for _, x := range s.docker {
		for _, r := range x.rules {
			w := strings.Fields(r)
			if len(w) < 2 || w[0] != "-A" || w[1] == dockerChain {
				continue
			}
			if !strings.HasPrefix(w[1], "DOCKER") && !strings.HasSuffix(r, " -j DOCKER") {
				continue
			}
			if i := slices.Index(w, "-o") + 1; i > 0 && i < len(w) && len(w[i]) < unix.IFNAMSIZ && !slices.Contains(names, w[i]) {
				names = append(names, w[i])
			}
		}
	}
	slices.Sort(names)
	return names
}

// accept makes Docker's chain forward what our own rules let through; no gateways at all:
// nothing of ours is left in it.
func (s *surroundings) accept(mark string, gateways []Gateway) error {
	for _, x := range s.docker {
		if err := x.put(mark, x.wanted(mark, gateways)); err != nil {
			return err
		}
	}
	return nil
}

// accepted says whether Docker's chain has what accept puts there.
func (s *surroundings) accepted(mark string, gateways []Gateway) bool {
	return !slices.ContainsFunc(s.docker, func(x *xtables) bool {
		return !same(x.marked(mark), x.wanted(mark, gateways))
	})
}

// hasLegacy says whether iptables' own tables, not nftables', have a filter.
func hasLegacy(v6 bool) bool {
	file := "/proc/thread-self/net/ip_tables_names"
	if v6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), "filter")
}

func legacyTables() bool { return hasLegacy(false) || hasLegacy(true) }
