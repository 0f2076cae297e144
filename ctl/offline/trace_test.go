package offline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vswitch/ctl/config"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// left is one frame that left by a port, or that a trace says would.
type left struct {
	port string
	tag  frame.Tag
	own  bool
	data string
}

// randomDocument is two bridges, patched together, with ports of all kinds.
func randomDocument(r *rand.Rand) (text string, ports []string) {
	var b strings.Builder
	vlan := func() int { return 10 * (1 + r.IntN(3)) }
	options := func() string {
		s := ""
		switch r.IntN(6) {
		case 0:
			s = fmt.Sprintf(", tag: %d", vlan())
		case 1:
			s = fmt.Sprintf(`, trunks: "%d,%d"`, vlan(), vlan()+100)
		case 2:
			s = fmt.Sprintf(`, tag: %d, vlan_mode: native-untagged, trunks: "%d"`, vlan(), vlan()+1)
		case 3:
			s = fmt.Sprintf(", tag: %d, vlan_mode: native-tagged", vlan())
		}
		if r.IntN(4) == 0 {
			s += ", offload: false"
		}
		return s
	}
	b.WriteString("bridges:\n")
	for br := range 2 {
		fmt.Fprintf(&b, "- name: br%d\n", br)
		if r.IntN(3) == 0 {
			b.WriteString("  forward-bpdu: true\n")
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "  flood_vlans: \"%d\"\n", vlan())
		}
		b.WriteString("  ports:\n")
		n := 2 + r.IntN(4)
		for p := range n {
			name := fmt.Sprintf("p%d%d", br, p)
			fmt.Fprintf(&b, "  - {name: %s%s}\n", name, options())
			ports = append(ports, name)
		}
		for x := range r.IntN(3) {
			name := fmt.Sprintf("vx%d%d", br, x)
			fmt.Fprintf(&b, "  - {name: %s, type: vxlan, remote_ip: 192.0.2.%d, key: %d%s}\n", name, x+1, br*10+x+1, strings.Split(options(), ", offload")[0])
			ports = append(ports, name)
		}
		fmt.Fprintf(&b, "  - {name: a%d, type: patch, peer: a%d}\n", br, 1-br)
		if r.IntN(4) == 0 { // a loop
			fmt.Fprintf(&b, "  - {name: b%d, type: patch, peer: b%d}\n", br, 1-br)
		}
		mirrors := ""
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "  - {name: span%d}\n", br)
			ports = append(ports, fmt.Sprintf("span%d", br))
			mirrors += fmt.Sprintf("  - {name: m0, select_all: true, output_port: span%d}\n", br)
		}
		if r.IntN(3) == 0 {
			mirrors += fmt.Sprintf("  - {name: m1, select_src_port: p%d0, output_vlan: %d}\n", br, vlan())
		}
		if r.IntN(3) == 0 {
			mirrors += fmt.Sprintf("  - {name: m2, select_dst_port: p%d1, output_pcap: /tmp/none%d.pcapng}\n", br, br)
		}
		if mirrors != "" {
			b.WriteString("  mirrors:\n" + mirrors)
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "  fdb:\n  - {mac: \"02:00:00:00:00:09\", port: p%d0, vlan: %d}\n", br, vlan())
		}
	}
	if r.IntN(2) == 0 {
		b.WriteString("meshes:\n- {name: m1, bridge: br0, key: 77, peers: [192.0.2.101, 192.0.2.102]}\n")
		ports = append(ports, "m1:192.0.2.101", "m1:192.0.2.102")
	}
	doc, err := config.Parse([]byte(b.String()))
	if err == nil {
		err = doc.Validate()
	}
	if err != nil { // such as a static MAC in a VLAN that its port does not carry
		return randomDocument(r)
	}
	return b.String(), ports
}

// randomWords is a frame between few stations, so that they meet.
func randomWords(r *rand.Rand) string {
	s := fmt.Sprintf("eth_src=02:00:00:00:00:%02x ", r.IntN(10))
	switch r.IntN(8) {
	case 0:
		s += "eth_dst=broadcast "
	case 1:
		s += fmt.Sprintf("eth_dst=01:80:c2:00:00:%02x ", r.IntN(18))
	case 2:
		s += "eth_dst=33:33:00:00:00:01 "
	default:
		s += fmt.Sprintf("eth_dst=02:00:00:00:00:%02x ", r.IntN(10))
	}
	if r.IntN(2) == 0 {
		s += fmt.Sprintf("vlan=%d pcp=%d ", []int{0, 10, 11, 20, 30, 110, 4094}[r.IntN(7)], r.IntN(8))
	}
	switch r.IntN(7) {
	case 0:
		s += fmt.Sprintf("super=%d", 3000+r.IntN(9000))
	case 1:
		s += fmt.Sprintf("super=%d mss=1400 ip_src=fd00::1 ip_dst=fd00::2", 3000+r.IntN(9000))
	case 2:
		s += fmt.Sprintf("udp len=%d", 1440+r.IntN(100))
	case 3:
		s += fmt.Sprintf("udp ip_src=fd00::1 ip_dst=fd00::2 len=%d", 1440+r.IntN(100))
	case 4:
		s += "arp"
	case 5:
		s += fmt.Sprintf("len=%d", 18+r.IntN(2000))
	}
	return s
}

// state is all that a trace must leave as it is.
func (b *bench) state(t *testing.T) string {
	t.Helper()
	var s strings.Builder
	for _, name := range b.names {
		st, err := b.sw.Bridge(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&s, "%+v\n", st)
		entries, err := b.sw.FDB(name, func(vswitch.FDBEntry) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range entries {
			e.Age = 0 // goes on by itself
			lines = append(lines, fmt.Sprintf("%+v", e))
		}
		slices.Sort(lines)
		s.WriteString(strings.Join(lines, "\n"))
	}
	return s.String()
}

// What a trace says would happen is what happens then, byte for byte, and the trace
// itself changes nothing: over random documents and random frames.
func TestTraceAgreesWithWhatHappens(t *testing.T) {
	const documents, frames = 40, 40
	stages := map[string]int{}
	for seed := range uint64(documents) {
		r := rand.New(rand.NewPCG(seed, 7))
		text, ports := randomDocument(r)
		links := map[string]Link{}
		if down := false; r.IntN(3) == 0 {
			links[ports[r.IntN(len(ports))]] = Link{Up: &down}
		}
		links["p00"] = Link{MTU: 1400 + r.IntN(200)}
		b, err := newBench(parse(t, text), links)
		if err != nil {
			t.Fatal(err)
		}
		var sent []left
		b.sent.look = func(port string, o *frame.Out) {
			sent = append(sent, left{port, o.Tag, o.Own, string(o.F.Bytes())})
		}
		answers := 0
		for i := range frames {
			words := randomWords(r)
			port := ports[r.IntN(len(ports))]
			f := made(t, words)
			if r.IntN(20) == 0 {
				f.Offload = frame.Offload{GSOType: uint8(r.IntN(8)), Flags: uint8(r.IntN(4)), GSOSize: uint16(r.IntN(2000)), CsumStart: uint16(r.IntN(100)), CsumOffset: 16, HdrLen: 54}
			}
			before := b.state(t)
			data := bytes.Clone(f.Data)
			traced, err := b.sw.Trace(port, data, f.Offload)
			if err != nil {
				t.Fatal(err)
			}
			if after := b.state(t); after != before {
				t.Fatalf("document %d, frame %d: the trace changed\n%s\ninto\n%s", seed, i, before, after)
			}
			if !bytes.Equal(data, f.Data) || len(sent) > 0 {
				t.Fatalf("document %d, frame %d: the trace changed its frame, or sent %d", seed, i, len(sent))
			}
			_, drops, err := b.put(port, f.Data, f.Offload)
			if err != nil {
				t.Fatal(err)
			}
			var would []left
			for _, s := range traced.Left {
				would = append(would, left{s.Port, s.Tag, s.Own, string(s.Data)})
				if s.Own {
					answers++
				}
			}
			var wouldDrop []Drop
			for _, s := range traced.Drops {
				wouldDrop = append(wouldDrop, Drop{s.Port, s.Reason.String()})
			}
			byPort := func(a, b left) int { return strings.Compare(a.port, b.port) }
			slices.SortStableFunc(would, byPort)
			slices.SortStableFunc(sent, byPort)
			byAll := func(a, b Drop) int { return strings.Compare(a.Port+" "+a.Reason, b.Port+" "+b.Reason) }
			slices.SortFunc(wouldDrop, byAll)
			slices.SortFunc(drops, byAll)
			if !slices.Equal(would, sent) || !slices.Equal(wouldDrop, drops) {
				var steps strings.Builder
				for _, s := range traced.Steps {
					fmt.Fprintf(&steps, "  %s %s %s: %s\n", s.Bridge, s.Port, s.Stage, s.Text)
				}
				t.Fatalf("document %d, frame %d, %q by %s:\nthe trace has %s, drops %v\nwhat happened is %s, drops %v\n%s\n%s",
					seed, i, words, port, ofLeft(would), wouldDrop, ofLeft(sent), drops, steps.String(), text)
			}
			for _, s := range traced.Steps {
				stages[s.Stage]++
				if of := b.ports[s.Port]; s.Port != "" && of.bridge != s.Bridge {
					t.Errorf("document %d, frame %d: a step %s at %s is said to be in %s", seed, i, s.Stage, s.Port, s.Bridge)
				}
			}
			sent = nil
			if answers > 15 { // twenty at once are given, and what comes then depends on time
				break
			}
		}
		b.close()
	}
	for _, s := range vswitch.Stages {
		if stages[s] == 0 && s != "storm" {
			t.Errorf("no frame came by stage %s", s)
		}
	}
	t.Logf("steps: %v", stages)
}

func ofLeft(all []left) string {
	var s []string
	for _, l := range all {
		s = append(s, fmt.Sprintf("%s %v own %t %d bytes", l.port, l.tag, l.own, len(l.data)))
	}
	return strings.Join(s, ", ")
}
