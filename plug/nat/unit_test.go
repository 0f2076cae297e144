package nat

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What iptables -S prints on a host with Docker 20.10, a network of its own, and an
// earlier life of ours.
const dockersTable = `-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o br-0c4f23c1a5b2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br-0c4f23c1a5b2 -j DOCKER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -i red -m comment --comment "vswitch-01234567" -j ACCEPT
-A DOCKER-USER -o green -m comment --comment vswitch-01234567 -j ACCEPT
-A DOCKER-USER -i red -m comment --comment vswitch-fedcba98 -j ACCEPT
-A DOCKER-USER -j RETURN
`

func TestReadDockersTable(t *testing.T) {
	x := &xtables{}
	x.read(dockersTable)
	s := &surroundings{docker: []*xtables{x}}
	if !x.there {
		t.Error("Docker's chain is not found")
	}
	if got, want := s.dockerBridges(), []string{"br-0c4f23c1a5b2", "docker0"}; !slices.Equal(got, want) {
		t.Errorf("Docker's bridges are %q, want %q", got, want)
	}
	if got, want := x.marked("vswitch-01234567"), []string{
		"-A DOCKER-USER -i red -m comment --comment vswitch-01234567 -j ACCEPT",
		"-A DOCKER-USER -o green -m comment --comment vswitch-01234567 -j ACCEPT",
	}; !slices.Equal(got, want) {
		t.Errorf("ours are %q, want %q", got, want)
	}
	for name, want := range map[string]bool{"red": true, "green": true, "re": false, "blue": false} {
		if got := x.compared("FORWARD").about(Gateway{Interface: name}, false); got != want {
			t.Errorf("that rules name %s is %t", name, got)
		}
	}
	if x.compared("INPUT").about(Gateway{Interface: "red"}, true) {
		t.Error("rules of one chain are taken for those of another")
	}
	// Docker 28 has its bridges in a chain of their own.
	x.read("-N DOCKER-USER\n-A DOCKER-BRIDGE -o docker0 -j DOCKER\n-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	if got := s.dockerBridges(); !slices.Equal(got, []string{"docker0"}) {
		t.Errorf("Docker's bridges are %q", got)
	}
	// Internal networks have no rule that lets anything in; users' rules name any interface.
	x.read("-N DOCKER-USER\n-A DOCKER-USER -o lan -j DOCKER\n-A FORWARD -o wan -j ACCEPT\n" +
		"-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o br-1 -j DROP\n-A DOCKER-ISOLATION-STAGE-1 ! -d 172.18.0.0/16 -i br-1 -j DROP\n" +
		"-A DOCKER-INTERNAL ! -s 172.19.0.0/16 -o br-2 -j DROP\n-A DOCKER -o\n-A DOCKER")
	if got := s.dockerBridges(); !slices.Equal(got, []string{"br-1", "br-2"}) {
		t.Errorf("Docker's bridges are %q", got)
	}
}

// What INPUT lets through is known by interface, subnet, or the port of questions for names.
func TestLegacyComparisons(t *testing.T) {
	for rule, want := range map[string]bool{
		"-A INPUT -i red -j ACCEPT":                                   true,
		"-A INPUT -i re+ -j ACCEPT":                                   true,
		"-A INPUT -i red2 -j ACCEPT":                                  false,
		"-A INPUT -s 10.1.0.0/24 -j ACCEPT":                           true,
		"-A INPUT -s 10.2.0.0/24 -j ACCEPT":                           false,
		"-A INPUT -p udp -m udp --dport 53 -j ACCEPT":                 true,
		"-A INPUT -p udp -m multiport --dports 22,50:60 -j ACCEPT":    true,
		"-A INPUT -p udp -m udp --dport 5353 -j ACCEPT":               false,
		"-A FORWARD -i red -j ACCEPT":                                 false,
		"-A INPUT -j mine\n-A mine -g yours\n-A yours -i red -j DROP": true,
	} {
		x := &xtables{legacy: true}
		x.read("-P INPUT DROP\n-N ufw-x\n" + rule)
		drops := x.droppingLegacy()
		if len(drops) != 1 || !drops[0].input || drops[0].advice != adviceUFWInput {
			t.Fatalf("what drops is %+v", drops)
		}
		if got := drops[0].mentions(red); got != want {
			t.Errorf("%s: that it is about red is %t", rule, got)
		}
	}
}

// The least that Docker's chain needs, by kind of gateway.
func TestWantedRules(t *testing.T) {
	routed, inner, only4 := red, red, red
	routed.Masquerade = false
	inner.Internal = true
	only4.Subnets = red.Subnets[:1]
	for _, test := range []struct {
		name    string
		gateway Gateway
		v6      bool
		want    []string
	}{
		{"masquerading", red, false, []string{"-i red", "-o red -m conntrack --ctstate RELATED,ESTABLISHED,DNAT"}},
		{"masquerading IPv6", red, true, []string{"-i red", "-o red -m conntrack --ctstate RELATED,ESTABLISHED,DNAT"}},
		{"routed", routed, false, []string{"-i red", "-o red"}},
		{"internal", inner, false, nil},
		{"no IPv6", only4, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want []string
			for _, w := range test.want {
				want = append(want, "-A DOCKER-USER "+w+" -m comment --comment m -j ACCEPT")
			}
			if got := (&xtables{v6: test.v6}).wanted("m", []Gateway{test.gateway}); !slices.Equal(got, want) {
				t.Errorf("wanted are %q, want %q", got, want)
			}
		})
	}
}

func TestRulesAreKnownByTheirMeaning(t *testing.T) {
	want := (&xtables{}).wanted("m", []Gateway{red})
	for _, test := range []struct {
		name string
		has  []string
		want bool
	}{
		{"as they are", want, true},
		{"in another order", []string{want[1], want[0]}, true},
		{"in other words", []string{
			"-A DOCKER-USER -i red -m comment --comment m -j ACCEPT ",
			"-A DOCKER-USER -o red -m comment --comment m -m conntrack --ctstate DNAT,RELATED,ESTABLISHED -j ACCEPT",
		}, true},
		{"one twice", append(slices.Clone(want), want[0]), false},
		{"one short", want[:1], false},
		{"without the condition", []string{want[0], "-A DOCKER-USER -o red -m comment --comment m -j ACCEPT"}, false},
		{"of another interface", []string{want[0], strings.Replace(want[1], "red", "blue", 1)}, false},
		{"that drop", []string{want[0], strings.Replace(want[1], "ACCEPT", "DROP", 1)}, false},
	} {
		if got := same(test.has, want); got != test.want {
			t.Errorf("rules %s: same is %t", test.name, got)
		}
	}
}

func TestGatewaysAreChecked(t *testing.T) {
	for _, g := range [][]Gateway{
		{{Interface: ""}}, {{Interface: "all"}}, {{Interface: "default"}}, {{Interface: ".."}}, {{Interface: "a/b"}},
		{{Interface: "a234567890123456"}}, {{Interface: "red+"}}, {{Interface: "-j"}}, {{Interface: "a b"}},
		{red, red},
		{{Interface: "red", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}}},
		{{Interface: "red", Subnets: []netip.Prefix{{}}}},
		{{Interface: "red", Subnets: []netip.Prefix{netip.MustParsePrefix("::ffff:10.1.0.0/120")}}},
	} {
		if err := checkGateways(g); err == nil {
			t.Errorf("%+v is taken", g)
		}
	}
	if err := checkGateways([]Gateway{red, blue, {Interface: "br-lan.5"}}); err != nil {
		t.Error(err)
	}
}

// Comments that the kernel or nft(8) would cut are none.
func TestCommentsFit(t *testing.T) {
	p := compose("t", []Gateway{red, blue}, nil, nil, nil)
	for _, c := range p.chains {
		for _, r := range c.rules {
			if len(r.comment) > 127 || r.comment == "" {
				t.Errorf("chain %s: comment %q", c.name, r.comment)
			}
		}
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add(dockersTable)
	f.Add("-A DOCKER-USER -o")
	f.Add("-A DOCKER-USER  -m comment --comment m -j\n\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		x := &xtables{}
		x.read(text)
		s := &surroundings{docker: []*xtables{x}}
		for _, b := range s.dockerBridges() {
			if strings.ContainsAny(b, " \n") {
				t.Errorf("a bridge is %q", b)
			}
		}
		for _, r := range x.marked("m") {
			if !strings.HasPrefix(r, "-A DOCKER-USER ") {
				t.Errorf("a rule of another chain is taken for ours: %q", r)
			}
			if len(strings.Fields(r)) < 3 {
				t.Errorf("too short a rule: %q", r)
			}
		}
		s.accepted("m", []Gateway{red})
		x.compared("FORWARD").about(red, true)
	})
}

const socketList = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0200007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 20340 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20341 1 0000000000000000 100 0 0 10 0
`

func TestFindSocket(t *testing.T) {
	for _, test := range []struct {
		port  uint16
		state uint64
		want  string
	}{{8080, 10, "20341"}, {8080, 1, "20340"}, {8081, 10, ""}, {8080, 7, ""}} {
		if got := findSocket([]byte(socketList), test.port, test.state); got != test.want {
			t.Errorf("port %d in state %d is of socket %q, want %q", test.port, test.state, got, test.want)
		}
	}
}

func FuzzFindSocket(f *testing.F) {
	f.Add([]byte(socketList))
	f.Add([]byte("a : b 0A c d e f g 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if inode := findSocket(text, 8080, 10); inode != "" && !strings.Contains(string(text), inode) {
			t.Errorf("socket %q is not in the list", inode)
		}
	})
}
