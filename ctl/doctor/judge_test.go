package doctor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vswitch/frame"
)

// TestSegmentsAreJudged: what the doctor's exchange takes for right is right, and each
// way in which a segment may be wrong is told.
func TestSegmentsAreJudged(t *testing.T) {
	finished := func(s *segment) ([]byte, frame.Offload) {
		b := bytes.Clone(s.data)
		if err := frame.Finish(b, &s.offload); err != nil {
			t.Fatal(err)
		}
		return b, frame.Offload{}
	}
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{0, 1, 1000, 20001} {
			s := newSegment(v6, n)
			super := n > segmentMSS
			if at, payload, mine, err := s.judge(s.data, &s.offload, false); err != nil || !mine || at != 0 || !bytes.Equal(payload, s.payload) {
				t.Errorf("%s: %d bytes as they were sent: %v", s.kind(), n, err)
			}
			if _, _, _, err := s.judge(s.data, &s.offload, true); err == nil {
				t.Errorf("%s: %d bytes: an unfinished segment passes for a finished one", s.kind(), n)
			}
			if !super {
				b, o := finished(s)
				for _, finish := range []bool{false, true} {
					if _, _, mine, err := s.judge(b, &o, finish); err != nil || !mine {
						t.Errorf("%s: %d bytes, finished: %v", s.kind(), n, err)
					}
				}
			}
		}
		s := newSegment(v6, 1000)
		l, err := frame.Parse(s.data)
		if err != nil {
			t.Fatal(err)
		}
		sum := l.L4 + tcpSumAt
		for _, tc := range []struct {
			name   string
			change func(b []byte, o *frame.Offload)
			finish bool // before the change
			want   string
		}{
			{"a byte changed", func(b []byte, _ *frame.Offload) { b[len(b)-1]++ }, false, "bytes arrived changed"},
			{"out of its place", func(b []byte, _ *frame.Offload) { b[l.L4+tcpSeqAt+3]++ }, false, "out of their place"},
			{"left unfinished, and not said so", func(_ []byte, o *frame.Offload) { *o = frame.Offload{} }, false, "the TCP checksum is wrong"},
			{"summed twice", func(b []byte, o *frame.Offload) {
				o.Flags, o.CsumStart, o.CsumOffset = frame.NeedsCsum, uint16(l.L4), tcpSumAt
			}, true, "does not hold the pseudo-header's sum"},
			{"summed from elsewhere", func(_ []byte, o *frame.Offload) { o.CsumStart += 4 }, false, "the checksum is said to be at"},
			{"a wrong sum", func(b []byte, _ *frame.Offload) {
				binary.BigEndian.PutUint16(b[sum:], ^binary.BigEndian.Uint16(b[sum:]))
			}, true, "the TCP checksum is wrong"},
			{"another protocol", func(b []byte, _ *frame.Offload) { b[l.L3+map[bool]int{false: 9, true: 6}[v6]] = 17 }, false, "no TCP any more"},
		} {
			b, o := bytes.Clone(s.data), s.offload
			if tc.finish {
				b, o = finished(s)
			}
			tc.change(b, &o)
			if _, _, mine, err := s.judge(b, &o, false); !mine || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %s: %v, want %q", s.kind(), tc.name, err, tc.want)
			}
		}
		super := newSegment(v6, 20001)
		for name, change := range map[string]func(o *frame.Offload){
			"of another size": func(o *frame.Offload) { o.GSOSize-- },
			"of another kind": func(o *frame.Offload) { o.GSOType ^= frame.GSOTCPv4 ^ frame.GSOTCPv6 },
			"without a sum":   func(o *frame.Offload) { o.Flags = 0 },
		} {
			o := super.offload
			change(&o)
			if _, _, _, err := super.judge(super.data, &o, false); err == nil {
				t.Errorf("%s: a super-frame %s passes", super.kind(), name)
			}
		}
		if _, _, mine, _ := s.judge(append(bytes.Repeat([]byte{0xff}, 6), s.data[6:]...), &s.offload, false); mine {
			t.Error("another's frame is taken for the doctor's")
		}
	}
}

// TestPeerAddresses: of a host with several addresses, those are looked at that there is
// a route to.
func TestPeerAddresses(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	mapped := netip.MustParseAddr("::ffff:192.0.2.2")
	for _, tc := range []struct {
		all    []netip.Addr
		routed []netip.Addr
		want   []netip.Addr
		text   string
	}{
		{[]netip.Addr{six, mapped}, []netip.Addr{four, six}, []netip.Addr{six, four}, "2001:db8::2, 192.0.2.2"},
		{[]netip.Addr{six, four}, []netip.Addr{four}, []netip.Addr{four}, "2001:db8::2 (no route), 192.0.2.2"},
		{[]netip.Addr{six, four}, nil, []netip.Addr{six}, "2001:db8::2 (no route), 192.0.2.2 (no route)"},
		{slices.Repeat([]netip.Addr{four}, 6), []netip.Addr{four}, slices.Repeat([]netip.Addr{four}, maxPeerAddresses), "192.0.2.2, 192.0.2.2, 192.0.2.2, 192.0.2.2, 2 more"},
	} {
		look, text := peerAddresses(tc.all, func(a netip.Addr) bool { return slices.Contains(tc.routed, a) })
		if !slices.Equal(look, tc.want) || text != tc.text {
			t.Errorf("%v: %v, %q; want %v, %q", tc.all, look, text, tc.want, tc.text)
		}
	}
}
