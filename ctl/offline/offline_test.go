package offline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"vswitch/capture"
	"vswitch/ctl/config"
	"vswitch/ctl/craft"
)

const macs = "eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:02 "

// document is a bridge with what can be in the way of a frame.
const document = `
bridges:
- name: br0
  ports:
  - {name: web, tag: 10}
  - {name: db, tag: 10}
  - {name: trunk, trunks: "10,20"}
  - {name: old, tag: 20, offload: false}
  - {name: vx0, type: vxlan, remote_ip: 192.0.2.2, key: 5, tag: 10}
  - {name: p0, type: patch, peer: p1, trunks: 30}
  - {name: span}
  mirrors:
  - {name: m0, select_dst_port: db, output_port: span}
  - {name: m1, select_all: true, output_pcap: /nowhere/at/all.pcapng}
  fdb:
  - {mac: "02:00:00:00:00:99", port: vx0, vlan: 10}
- name: br1
  ports:
  - {name: p1, type: patch, peer: p0, trunks: 30}
  - {name: vm, tag: 30}
`

func parse(t testing.TB, text string) config.Document {
	t.Helper()
	doc, err := config.Parse([]byte(text))
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return doc
}

// in is a frame of a capture: the port, and its words.
type in struct{ port, words string }

// captureOf writes frames as a capture of this switch's has them.
func captureOf(t testing.TB, frames ...in) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := capture.NewWriter(&b, capture.Options{})
	for i, f := range frames {
		port, out := strings.CutPrefix(f.port, "out:")
		direction := capture.Inbound
		if out {
			direction = capture.Outbound
		}
		w.Write(&capture.Packet{Time: time.Unix(int64(i), 0), Interface: capture.Interface{Name: port}, Direction: direction, Data: made(t, f.words).Data})
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func made(t testing.TB, words string) craft.Frame {
	t.Helper()
	if !strings.Contains(words, "eth_src") {
		words = macs + words
	}
	s, err := craft.Parse(strings.Fields(words))
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Frame()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// said is what became of a frame in words.
func said(f *Frame) string {
	var all []string
	for _, o := range f.Out {
		all = append(all, o.String())
	}
	for _, d := range f.Drop {
		all = append(all, d.String())
	}
	return strings.Join(all, "; ")
}

func TestRun(t *testing.T) {
	back := "eth_src=02:00:00:00:00:02 eth_dst=02:00:00:00:00:01 "
	cases := []struct {
		in
		want string
	}{
		{in{"web", "arp eth_dst=broadcast eth_src=02:00:00:00:00:01"}, "leaves by db untagged; leaves by span tagged 10; leaves by trunk tagged 10; leaves by vx0 untagged"},
		{in{"db", back}, "leaves by web untagged"},
		{in{"web", "len=1514"}, "leaves by db untagged; leaves by span tagged 10"},
		{in{"web", "len=1515"}, "is dropped at db: mtu-exceeded; is dropped at span: mtu-exceeded"},
		{in{"web", "vlan=10"}, "is dropped at web: vlan-tagged-on-access"},
		{in{"trunk", "vlan=30"}, "is dropped at trunk: vlan-not-trunked"},
		{in{"span", ""}, "is dropped at span: mirror-output-port"},
		{in{"web", "eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:99 udp len=1464"}, "leaves by vx0 untagged"},
		// 1450 bytes of IP fit into VXLAN over 1500; the sender of more is told.
		{in{"web", "eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:99 udp len=1465 ip_src=10.0.0.1 ip_dst=10.0.0.2"}, "is answered by web untagged; is dropped at vx0: mtu-exceeded"},
		{in{"old", "eth_src=02:00:00:00:00:20 eth_dst=02:00:00:00:00:21"}, "leaves by trunk tagged 20"},
		// A super-frame in the capture was one on the wire.
		{in{"trunk", "vlan=20 eth_src=02:00:00:00:00:21 eth_dst=02:00:00:00:00:20 super=14600"}, "leaves by old untagged, in 10 frames"},
		// span is for copies alone: nobody else of br0 is in VLAN 30.
		{in{"vm", ""}, "is dropped at p0: no-output"},
		{in{"web", "eth_src=02:00:00:00:00:01 eth_dst=01:80:c2:00:00:0e"}, "is dropped at web: reserved-multicast"},
		{in{"out:web", ""}, ""},
	}
	var frames []in
	for _, c := range cases {
		frames = append(frames, c.in)
	}
	r, err := Run(parse(t, document), nil, captureOf(t, frames...), "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Skipped != 1 || len(r.Frames) != len(cases)-1 {
		t.Fatalf("%d frames, %d skipped", len(r.Frames), r.Skipped)
	}
	for i, c := range cases[:len(r.Frames)] {
		if got := said(&r.Frames[i]); got != c.want {
			t.Errorf("frame %d, %v:\n got %s\nwant %s", i+1, c.in, got, c.want)
		}
	}
	want := []MAC{
		{"br0", 10, "02:00:00:00:00:01", "web"}, {"br0", 10, "02:00:00:00:00:02", "db"},
		{"br0", 20, "02:00:00:00:00:20", "old"}, {"br0", 20, "02:00:00:00:00:21", "trunk"},
		{"br0", 30, "02:00:00:00:00:01", "p0"}, {"br1", 30, "02:00:00:00:00:01", "vm"},
	}
	if fmt.Sprint(r.FDB) != fmt.Sprint(want) {
		t.Errorf("learned %v, want %v", r.FDB, want)
	}
}

// What is recorded is read again, and expected; the same twice.
func TestRecordedIsExpected(t *testing.T) {
	frames := []in{
		{"web", "eth_src=02:00:00:00:00:01 eth_dst=broadcast arp"}, {"db", "eth_src=02:00:00:00:00:02 eth_dst=02:00:00:00:00:01 tcp"},
		{"web", "vlan=10 pcp=5"}, {"trunk", "vlan=20 pcp=5 eth_src=02:00:00:00:00:07 eth_dst=broadcast"}, {"vm", ""},
		{"web", "super=14600"},
	}
	up := false
	links := map[string]Link{"db": {MTU: 1400}, "trunk": {Up: &up}}
	r, err := Run(parse(t, document), links, captureOf(t, frames...), "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Expectation(links).YAML()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	want, err := ReadExpectation(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for range 2 {
		again, err := Run(parse(t, document), want.Ports, captureOf(t, frames...), "")
		if err != nil {
			t.Fatal(err)
		}
		if d := again.Compare(want); len(d) > 0 {
			t.Errorf("differs: %+v\n%s", d, text)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, tc := range []struct {
		expect string
		want   []string // of each difference: "frame: -missing +surplus"
	}{
		{"frames:\n- {frame: 1, in_port: web, out: [{port: db}, {port: span, vlan: 10}, {port: trunk, vlan: 10}, {port: vx0}]}\n- {frame: 2, in_port: web, drop: vlan-tagged-on-access}\n", nil},
		{"frames:\n- {frame: 1, out: [{port: vx0}, {port: trunk, vlan: 10}, {port: span, vlan: 10}, {port: db}]}\n- {frame: 2, drop: {port: web, reason: vlan-tagged-on-access}}\nfdb: [{bridge: br0, vlan: 10, mac: '02-00-00-00-00-01', port: web}]\n", nil},
		{"frames:\n- {frame: 1, in_port: db, out: [{port: db}, {port: span, vlan: 10}, {port: vx0, vlan: 3}, {port: trunk, vlan: 10, count: 2}]}\n- {frame: 2, drop: [{port: db, reason: vlan-tagged-on-access}]}\n- {frame: 3}\nfdb: []\n",
			[]string{
				"1:-comes in by db-leaves by trunk tagged 10, in 2 frames-leaves by vx0 tagged 3+comes in by web+leaves by trunk tagged 10+leaves by vx0 untagged",
				"2:-is dropped at db: vlan-tagged-on-access+is dropped at web: vlan-tagged-on-access",
				"3:-comes in: the capture has no such frame that does",
				"0:+02:00:00:00:00:01 in VLAN 10 of br0 is behind web"}},
		{"", []string{"1:+comes in, and nothing is expected of it", "2:+comes in, and nothing is expected of it"}},
	} {
		r, err := Run(parse(t, document), nil, captureOf(t, in{"web", "eth_src=02:00:00:00:00:01 eth_dst=broadcast"}, in{"web", "vlan=10"}), "")
		if err != nil {
			t.Fatal(err)
		}
		e, err := ReadExpectation([]byte(tc.expect))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range r.Compare(e) {
			s := fmt.Sprintf("%d:", d.Number)
			for _, m := range d.Missing {
				s += "-" + m
			}
			for _, m := range d.Surplus {
				s += "+" + m
			}
			got = append(got, s)
		}
		if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%s\n got %q\nwant %q", tc.expect, got, tc.want)
		}
	}
}

func TestExpectationsThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"frame: []":                                   "field frame not found",
		"frames:\n- {frame: 2}\n- {frame: 1}":         "frame 1 stands behind frame 2",
		"frames:\n- {frame: 0}":                       "frame 0 stands",
		"frames:\n- {frame: 1, drop: vlan-not-trunk}": `"vlan-not-trunk" is no reason`,
		"frames:\n- {frame: 1, drop: {at: web}}":      "a drop is a reason",
		"frames:\n- {frame: 1, out: [{prt: web}]}":    "field prt not found",
		"ports: {web: {mtu: 70000}}":                  "mtu 70000",
		"fdb: [{mac: five}]":                          `"five" is no MAC address`,
		"frames: []\n---\nframes: []\n":               "something follows",
		"\x00":                                        "",
	} {
		if _, err := ReadExpectation([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestRefusedCaptures(t *testing.T) {
	doc := parse(t, document)
	for _, tc := range []struct {
		port, inPort, want string
	}{
		{"eth0", "", "frame 1 came in by eth0, and the document has no such port: --in-port says which it is"},
		{"", "", "frame 1: the capture does not say by which port it came in"},
		{"web", "nowhere", "frame 1 came in by nowhere"},
		{"eth0", "web", ""},
	} {
		_, err := Run(doc, nil, captureOf(t, in{tc.port, ""}), tc.inPort)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	if _, err := Run(doc, map[string]Link{"eth7": {MTU: 9000}}, captureOf(t), ""); err == nil || !strings.Contains(err.Error(), "no port eth7") {
		t.Errorf("a link of no port: %v", err)
	}
	if _, err := Run(doc, nil, strings.NewReader("no capture"), ""); err == nil {
		t.Error("no capture is taken for one")
	}
}

// Any text is expectations or an error, and what is read can be written and read again.
func FuzzExpectation(f *testing.F) {
	f.Add("ports: {db: {mtu: 1400, up: false}}\nframes:\n- frame: 1\n  in_port: web\n  out:\n  - {port: db, vlan: 0, pcp: 3, count: 2}\n  drop: mtu-exceeded\nfdb:\n- {bridge: b, vlan: 1, mac: 02:00:00:00:00:01, port: p}\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ReadExpectation([]byte(text))
		if err != nil {
			return
		}
		b, err := e.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadExpectation(b)
		if err != nil || len(again.Frames) != len(e.Frames) {
			t.Fatalf("%q is written as %q: %v", text, b, err)
		}
		r := Result{Frames: again.Frames, FDB: again.FDB}
		if e.FDB == nil {
			r.FDB = nil
		}
		for _, fr := range e.Frames {
			for _, d := range fr.Drop {
				if d.Port == "" {
					return // matches any, and so not itself alone
				}
			}
		}
		if d := r.Compare(e); len(d) > 0 {
			t.Fatalf("%q is written as %q: %+v", text, b, d)
		}
	})
}
