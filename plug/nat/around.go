package nat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
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
	drops  []droppingChain // base chains that drop by default
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
		}
		s.drops = append(s.drops, x.droppingLegacy()...)
	}
	return nil
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
