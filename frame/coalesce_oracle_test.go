package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// naiveCoalesce is the oracle: it says which of the arriving frames stand together
// in one frame. It asks no field what it may be, but tries: a segment is joined if
// the whole, put together and cut again, is what arrived.
func naiveCoalesce(in []arrival) [][]arrival {
	var out [][]arrival
	open := map[string]int{} // flow: index in out
	var age []string         // flows in open, the oldest first
	drop := func(flow string) {
		delete(open, flow)
		age = slices.DeleteFunc(age, func(s string) bool { return s == flow })
	}
	for _, a := range in {
		flow, addrs := naiveFlow(a)
		if flow == "" {
			if addrs != "" {
				for _, s := range slices.Clone(age) {
					if strings.HasPrefix(s, addrs) {
						drop(s)
					}
				}
			}
			out = append(out, []arrival{a})
			continue
		}
		if i, ok := open[flow]; ok {
			if joined := append(slices.Clone(out[i]), a); naiveFits(joined) {
				out[i] = joined
				if naiveEnds(joined) {
					drop(flow)
				}
				continue
			}
			drop(flow)
		}
		out = append(out, []arrival{a})
		if naiveStarts(a) {
			if len(age) == 8 {
				drop(age[0])
			}
			open[flow] = len(out) - 1
			age = append(age, flow)
		}
	}
	return out
}

// naiveFlow names the flow of a frame, beginning with its port and addresses; of
// what is IP, but may not be joined, only these.
func naiveFlow(a arrival) (flow, addrs string) {
	l, err := Parse(a.b)
	hdr := map[uint16]int{EtherIPv4: 20, EtherIPv6: 40}[l.EtherType]
	if hdr == 0 || len(a.b) < l.L3+hdr {
		return "", ""
	}
	if hdr == 20 {
		addrs = fmt.Sprintf("%d %x ", a.port, a.b[l.L3+12:l.L3+20])
	} else {
		addrs = fmt.Sprintf("%d %x ", a.port, a.b[l.L3+8:l.L3+40])
	}
	if err != nil || l.Fragment || l.L4 != l.L3+hdr || l.Proto != 6 && l.Proto != 17 {
		return "", addrs
	}
	return addrs + fmt.Sprintf("%d %x", l.Proto, a.b[l.L4:l.L4+4]), addrs
}

// naiveSegment takes a frame apart.
func naiveSegment(b []byte) (hdr, payload []byte, udp bool, flags byte) {
	l, _ := Parse(b)
	if udp = l.Proto == 17; !udp {
		flags = b[l.L4+13]
	}
	return b[:l.Payload], b[l.Payload:l.End], udp, flags
}

func naiveStarts(a arrival) bool {
	_, payload, udp, flags := naiveSegment(a.b)
	l, _ := Parse(a.b)
	if udp && (!a.train || a.b[l.L4+6]|a.b[l.L4+7] == 0 || int(binary.BigEndian.Uint16(a.b[l.L4+4:])) != l.End-l.L4) {
		return false
	}
	return len(payload) > 0 && l.End == len(a.b) && flags&(1|2|4|8|32) == 0
}

func naiveEnds(joined []arrival) bool {
	_, first, udp, _ := naiveSegment(joined[0].b)
	_, last, _, flags := naiveSegment(joined[len(joined)-1].b)
	return len(last) < len(first) || flags&(1|8) != 0 || len(joined) == 2048 || udp && len(joined) == 64
}

// naiveFits puts the segments together, cuts the whole, and compares the last two:
// those before them fitted when the last but one was joined.
func naiveFits(joined []arrival) bool {
	hdr, first, udp, flags := naiveSegment(joined[0].b)
	var whole []byte
	for _, a := range joined {
		_, payload, _, f := naiveSegment(a.b)
		whole = append(whole, payload...)
		flags |= f & (1 | 8)
		if udp && !a.train || len(payload) == 0 {
			return false
		}
	}
	l, _ := Parse(joined[0].b)
	if len(hdr)-l.L3+len(whole) > 65535 || len(hdr)+len(whole) > MaxLen || udp && len(joined) > 64 || len(joined) > 2048 {
		return false
	}
	size := len(first)
	if (len(whole)+size-1)/size != len(joined) {
		return false
	}
	id := binary.BigEndian.Uint16(hdr[l.L3+4:])
	for k := len(joined) - 2; k < len(joined); k++ {
		end := min((k+1)*size, len(whole))
		b := join(hdr, whole[k*size:end])
		if l.EtherType == EtherIPv4 {
			binary.BigEndian.PutUint16(b[l.L3+2:], uint16(len(b)-l.L3))
			binary.BigEndian.PutUint16(b[l.L3+4:], id+uint16(k))
		} else {
			binary.BigEndian.PutUint16(b[l.L3+4:], uint16(len(b)-l.L4))
		}
		if udp {
			binary.BigEndian.PutUint16(b[l.L4+4:], uint16(len(b)-l.L4))
		} else {
			binary.BigEndian.PutUint32(b[l.L4+4:], binary.BigEndian.Uint32(hdr[l.L4+4:])+uint32(k*size))
			b[l.L4+13] = flags
			if end < len(whole) {
				b[l.L4+13] &^= 1 | 8
			}
			if k > 0 {
				b[l.L4+13] &^= 0x80
			}
		}
		if !bytes.Equal(resum(b), joined[k].b) {
			return false
		}
	}
	return true
}

// traffic makes up what arrives: several flows, some between the same addresses,
// in trains, with everything that a network and its hosts may do to them. Every
// choice is pick's, which returns 0 to n-1.
func traffic(pick func(n int) int, frames int) []arrival {
	type stream struct {
		packet
		addr, from byte
		ack, win   byte
		port       uint32
		size       int
	}
	var streams []*stream
	for range 1 + pick(12) {
		s := &stream{addr: byte(pick(2)), from: byte(pick(3)), port: uint32(pick(2)), size: []int{1, 2, 17, 100, 536, 1448, 9000}[pick(7)]}
		s.v6, s.udp = pick(2) == 0, pick(3) == 0
		s.id, s.seq, s.flags = uint16(-pick(50)), uint32(-pick(20000)), 0x10
		for range pick(8) - 5 {
			s.tags = append(s.tags, Tag{[]uint16{TPID8021Q, TPID8021AD}[pick(2)], uint16(pick(3))})
		}
		if pick(2) == 0 {
			s.tcpOpts = nops(12)
		}
		streams = append(streams, s)
	}
	filler := randomBytes(rand.New(rand.NewPCG(1, 2)), 9000+256)
	// next builds p as the stream's next frame; edit works on its IP packet.
	next := func(s *stream, p packet, edit func(ip []byte)) []byte {
		b, _ := p.build()
		l, _ := Parse(b)
		ip, l4 := b[l.L3:], b[l.L4:]
		ip[map[bool]int{false: 19, true: 39}[s.v6]] += s.addr
		if l.L4 != 0 {
			l4[1] += s.from
			if !s.udp {
				l4[11] += s.ack
				l4[15] += s.win
			}
		}
		if edit != nil {
			edit(ip)
		}
		return resum(b)
	}
	var in []arrival
	train := false
	for len(in) < frames {
		s := streams[pick(len(streams))]
		if pick(8) == 0 {
			train = !train
		}
		add := func(b []byte) { in = append(in, arrival{b, s.port, train}) }
		for range 1 + pick(12) {
			p := s.packet
			p.payload = bytes.Clone(filler[pick(256):][:s.size])
			event := pick(48)
			switch event {
			case 1:
				p.payload = p.payload[:1+pick(s.size)]
			case 2:
				p.payload = nil
			case 3:
				p.payload = append(p.payload, 0)
			case 4:
				p.flags |= 0x08
			case 5:
				p.flags |= 0x01
			case 6:
				p.flags |= 0x80
			case 7:
				p.flags ^= byte(1 << pick(8))
			case 8:
				s.ack++
			case 9:
				s.win++
			case 10:
				p.pad = 1 + pick(20)
			case 11:
				p.ipOpts = nops(4)
			case 12:
				p.proto0, p.ext = 60, ext(map[bool]byte{false: 6, true: 17}[p.udp], 1)
			case 13:
				p.frag = []uint16{0x2000, 0x2001, 1, 0x4000, 0x8000}[pick(5)]
			case 14:
				s.id += uint16(pick(3))
			case 15:
				s.seq += uint32(pick(3)) * uint32(s.size) // lost
			}
			b := next(s, p, nil)
			l, _ := Parse(b)
			switch event {
			case 16:
				b[pick(len(b))] ^= byte(1 + pick(255)) // corrupt
			case 17:
				b[pick(min(len(b), l.Payload+8))] ^= byte(1 << pick(8))
				resum(b)
			case 18:
				b = b[:pick(len(b))]
			case 19:
				if len(in) > 0 { // again
					b = in[len(in)-1-pick(min(len(in), 5))].b
					s.port = in[len(in)-1].port
				}
			case 20:
				field := l.L4 + map[bool]int{false: 16, true: 6}[s.udp]
				if field+2 <= len(b) {
					copy(b[field:], [][]byte{{0, 0}, {0xff, 0xff}}[pick(2)])
				}
			case 21:
				copy(b[l.L3+10:], []byte{0xff, 0xff})
			case 22: // the payload that makes the checksum 0, and the other zero
				field := l.L4 + map[bool]int{false: 16, true: 6}[s.udp]
				if s.size >= 20 && l.Payload+2 <= len(b) && l.Payload > l.L4 {
					at := l.Payload + (l.Payload-l.L4)%2
					copy(b[at:], []byte{0, 0})
					resum(b)
					copy(b[at:], b[field:field+2])
					if resum(b); pick(2) == 0 {
						copy(b[field:], []byte{0xff, 0xff})
					}
				}
			case 23:
				b = b[:12]
				for range pick(60) {
					b = append(b, byte(pick(256)))
				}
			}
			add(b)
			s.seq += uint32(len(p.payload))
			s.id++
			if n := len(in); event == 24 && n > 1 {
				in[n-1], in[n-2] = in[n-2], in[n-1]
			}
		}
	}
	return in
}

// checkCoalesce receives in, and compares with the oracle; and, beside it, sees
// that nothing is lost, changed, or overtaken in its flow.
func checkCoalesce(t *testing.T, frames []*Frame, c *Coalescer, in []arrival) [][]arrival {
	t.Helper()
	mine := make([]arrival, len(in))
	for i, a := range in {
		mine[i] = arrival{bytes.Clone(a.b), a.port, a.train}
	}
	last := len(frames) - 1
	got, want := apart(t, receive(c, frames[:last], mine), frames[last]), naiveCoalesce(in)
	out := slices.Concat(got...)
	sorted := func(list []arrival) (all []string) {
		for _, a := range list {
			all = append(all, fmt.Sprint(a.port, " ")+string(a.b))
		}
		slices.Sort(all)
		return all
	}
	if !slices.Equal(sorted(out), sorted(in)) {
		t.Fatalf("%d frames in, %d out, or not the same", len(in), len(out))
	}
	// A flow's frames are also those that may belong to any flow of its addresses.
	byFlow := func(list []arrival) map[string][][]byte {
		m := map[string][][]byte{}
		for _, a := range in {
			if flow, _ := naiveFlow(a); flow != "" {
				m[flow] = nil
			}
		}
		for _, a := range list {
			flow, addrs := naiveFlow(a)
			for f := range m {
				if f == flow || flow == "" && addrs != "" && strings.HasPrefix(f, addrs) {
					m[f] = append(m[f], a.b)
				}
			}
		}
		return m
	}
	after := byFlow(out)
	for flow, before := range byFlow(in) {
		if !slices.EqualFunc(after[flow], before, bytes.Equal) {
			t.Fatalf("flow %s: order changed", flow)
		}
	}
	if fmt.Sprint(counts(got)) != fmt.Sprint(counts(want)) {
		t.Fatalf("joined as\n%v, want\n%v", counts(got), counts(want))
	}
	for i, of := range got {
		for k := range of {
			if of[k].port != want[i][k].port || !bytes.Equal(of[k].b, want[i][k].b) {
				t.Fatalf("frame %d, segment %d of %d:\n got % x\nwant % x", i, k, len(of), of[k].b, want[i][k].b)
			}
		}
	}
	return got
}

func TestCoalesceAgainstNaive(t *testing.T) {
	frames := poolFrames(t, 200)
	r := rand.New(rand.NewPCG(31, 32))
	var c Coalescer
	joined, kinds := 0, map[string]int{}
	for range 600 {
		for _, of := range checkCoalesce(t, frames, &c, traffic(r.IntN, 1+r.IntN(150))) {
			if len(of) > 1 {
				l, _ := Parse(of[0].b)
				kinds[fmt.Sprintf("%#x %d tags=%d", l.EtherType, l.Proto, l.Tags)]++
				joined += len(of)
			}
		}
	}
	if joined < 10000 || len(kinds) < 12 {
		t.Errorf("only %d segments of %d kinds were joined", joined, len(kinds))
	}
	t.Logf("%d segments joined: %v", joined, kinds)
}

func FuzzCoalesce(f *testing.F) {
	frames := poolFrames(f, 70)
	r := rand.New(rand.NewPCG(33, 34))
	for range 40 {
		f.Add(randomBytes(r, 400))
	}
	var c Coalescer
	f.Fuzz(func(t *testing.T, data []byte) {
		// Two bytes of data are one choice; 0 when there are no more.
		pick := func(n int) int {
			if len(data) < 2 {
				data = nil
				return 0
			}
			v := binary.LittleEndian.Uint16(data)
			data = data[2:]
			return int(v) % n
		}
		checkCoalesce(t, frames, &c, traffic(pick, 1+pick(50)))
	})
}
