package nat

import (
	"errors"
	"strings"
	"testing"
)

// What firewalld 1.3 writes, as far as it matters: its policy is to accept, and its zones' last
// word is not.
const firewalld = `table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		meta l4proto { icmp, ipv6-icmp } accept
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		jump filter_FORWARD_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_INPUT_ZONES { }
	chain filter_FORWARD_ZONES { }
}`

// Somebody's own firewall is nobody's to change: it is told about, as long as it has no rule
// about the gateway. published says that what is published is told about, too.
func TestForeignFirewall(t *testing.T) {
	forwards := "nft add table inet mine\nnft add chain inet mine away { type filter hook forward priority 0; policy drop; }\n"
	hears := "nft add table inet mine\nnft add chain inet mine here { type filter hook input priority 0; policy drop; }\n"
	for _, test := range []struct {
		name          string
		drop, allow   string
		chain, advice string
		published     bool
	}{
		{"iptables", "iptables -P FORWARD DROP\niptables -N ufw-user-forward\niptables -A FORWARD -j ufw-user-forward",
			"iptables -A ufw-user-forward -i red -j ACCEPT\niptables -A ufw-user-forward -o red -j ACCEPT",
			"what is forwarded (chain FORWARD of table ip filter", "ufw route allow in on red; ufw route allow out on red", true},
		{"legacy", "iptables-legacy -P FORWARD DROP", "iptables-legacy -A FORWARD -i red -j ACCEPT\niptables-legacy -A FORWARD -o red -j ACCEPT",
			"chain FORWARD of table iptables-legacy filter", "let it accept", true},
		{"nftables", forwards, "nft add rule inet mine away iifname red accept\nnft add rule inet mine away oifname red accept",
			"chain away of table inet mine", "let it accept", true},
		{"a set of interfaces", forwards, "nft add rule inet mine away iifname { red, lan } accept\nnft add rule inet mine away oifname { red, lan } accept",
			"chain away of table inet mine", "let it accept", true},
		{"a map of interfaces", forwards + "nft add chain inet mine there", "nft add rule inet mine there accept\n" +
			"nft add rule inet mine away oifname vmap { red : jump there }\nnft add rule inet mine away ct state established,related accept",
			"chain away of table inet mine", "let it accept", true},
		{"interfaces that begin so", forwards, `nft add rule inet mine away iifname "re*" accept` + "\n" + `nft add rule inet mine away oifname "re*" accept`,
			"chain away of table inet mine", "let it accept", true},
		{"an interface's index", forwards, "nft add rule inet mine away iif red accept\nnft add rule inet mine away oif red accept",
			"chain away of table inet mine", "let it accept", true},
		{"pairs of interfaces", forwards, "nft add rule inet mine away iifname . oifname { red . eth0, eth0 . red } accept",
			"chain away of table inet mine", "let it accept", true},
		{"a subnet", forwards, "nft add rule inet mine away ip saddr 10.1.0.0/24 accept\nnft add rule inet mine away ip daddr 10.1.0.0/24 accept",
			"chain away of table inet mine", "let it accept", true},
		{"iptables, names", "iptables -P INPUT DROP\niptables -N ufw-user-input\niptables -A INPUT -j ufw-user-input\niptables -A FORWARD -i red -j ACCEPT",
			"iptables -A ufw-user-input -i red -p udp --dport 53 -j ACCEPT",
			"questions for names (chain INPUT of table ip filter", "(ufw allow in on red to any port 53)", false},
		{"iptables, names for all", "iptables -P INPUT DROP", "iptables -A INPUT -p udp --dport 53 -j ACCEPT",
			"questions for names (chain INPUT of table ip filter", "let it accept port 53", false},
		{"nftables, names", hears, "nft add rule inet mine here udp dport { 53, 67 } accept",
			"questions for names (chain here of table inet mine", "let it accept port 53", false},
		{"firewalld", firewalld, "nft add rule inet firewalld filter_FORWARD_ZONES iifname red accept\nnft add rule inet firewalld filter_INPUT_ZONES iifname red accept",
			"what is forwarded (chain filter_FORWARD of table inet firewalld", "(firewall-cmd --permanent --zone=trusted --add-interface=red; firewall-cmd --reload)", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			g.serve(g.r1.Namespace, 80)
			g.serve(g.host.Namespace, 53)
			run := func(commands string) error {
				if strings.HasPrefix(commands, "table") { // all in one
					_, err := g.host.Exec("nft", commands)
					return err
				}
				for c := range strings.Lines(strings.ReplaceAll(commands, `"`, "")) {
					if _, err := g.host.Exec(strings.Fields(c)...); err != nil {
						return err
					}
				}
				return nil
			}
			if err := run(test.drop); err != nil {
				if test.name == "legacy" {
					t.Logf("this kernel has no legacy tables: %v", err)
					return
				}
				t.Fatal(err)
			}
			before := g.ruleset()
			named := red
			named.Names = true
			status := g.apply([]Gateway{named}, forward("", 8080, "tcp", "10.1.0.2:80", "red"))
			told := g.wall.Blocked()
			for _, want := range []string{test.chain, test.advice, "has no rule for red"} {
				if told == nil || !strings.Contains(told.Error(), want) {
					t.Errorf("it is told %q, without %q", told, want)
				}
				if test.published != strings.Contains(status[0].Err, want) {
					t.Errorf("the status is %q; that %q is in it should be %t", status[0].Err, want, test.published)
				}
			}
			if told != nil && strings.Count(told.Error(), "\n") != 0 {
				t.Errorf("it is told more than once: %v", told)
			}
			err := g.host.Do(func() error { _, err := g.wall.Check(); return err })
			if !errors.Is(err, ErrBlocked) {
				t.Errorf("check: %v", err)
			}
			if test.published {
				g.silent(g.out.Namespace, "192.0.2.1:8080")
			} else {
				g.reaches(g.out.Namespace, "tcp", "192.0.2.1:8080", outside4)
				g.silent(g.r1.Namespace, "10.1.0.1:53")
			}
			if after := g.ruleset(); after != before {
				t.Errorf("others' rules were\n%s\nand are\n%s", before, after)
			}
			if err := run(test.allow); err != nil {
				t.Fatal(err)
			}
			if g.check() {
				t.Error("something is missing")
			}
			g.reaches(g.out.Namespace, "tcp", "192.0.2.1:8080", outside4)
			if !test.published {
				g.reaches(g.r1.Namespace, "udp", "10.1.0.1:53", "10.1.0.2")
			}
			if s := g.wall.Statuses(); s[0].Err != "" {
				t.Errorf("the status is %q", s[0].Err)
			}
			if err := g.wall.Blocked(); err != nil {
				t.Errorf("it is told still: %v", err)
			}
		})
	}
}
