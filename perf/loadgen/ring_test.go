package loadgen

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The offsets are those of linux/if_packet.h.
func TestRingLayout(t *testing.T) {
	var block unix.TpacketBlockDesc
	var v1 unix.TpacketHdrV1
	var frame unix.Tpacket3Hdr
	for name, pair := range map[string][2]uintptr{
		"block status":    {offBlockStatus, unsafe.Offsetof(block.Hdr) + unsafe.Offsetof(v1.Block_status)},
		"block frames":    {offBlockFrames, unsafe.Offsetof(block.Hdr) + unsafe.Offsetof(v1.Num_pkts)},
		"block first":     {offBlockFirst, unsafe.Offsetof(block.Hdr) + unsafe.Offsetof(v1.Offset_to_first_pkt)},
		"frame next":      {offFrameNext, unsafe.Offsetof(frame.Next_offset)},
		"frame sec":       {offFrameSec, unsafe.Offsetof(frame.Sec)},
		"frame nsec":      {offFrameNsec, unsafe.Offsetof(frame.Nsec)},
		"frame snaplen":   {offFrameSnaplen, unsafe.Offsetof(frame.Snaplen)},
		"frame len":       {offFrameLen, unsafe.Offsetof(frame.Len)},
		"frame mac":       {offFrameMac, unsafe.Offsetof(frame.Mac)},
		"length of frame": {frameHeaderLen, unsafe.Sizeof(frame)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s at %d, not %d", name, pair[1], pair[0])
		}
	}
}

// fill makes a block as the kernel does: frames of one flow from seq on, arriving
// a microsecond apart, stamped a millisecond before.
func fill(block []byte, n int, seq uint32) {
	const first, head, each = 48, 80, 80 + snapLen
	clear(block)
	binary.NativeEndian.PutUint32(block[offBlockStatus:], unix.TP_STATUS_USER)
	binary.NativeEndian.PutUint32(block[offBlockFrames:], uint32(n))
	binary.NativeEndian.PutUint32(block[offBlockFirst:], first)
	for i := range n {
		h := block[first+i*each:]
		arrived := int64(5e9 + i*1000)
		if i < n-1 {
			binary.NativeEndian.PutUint32(h[offFrameNext:], each)
		}
		binary.NativeEndian.PutUint32(h[offFrameSec:], uint32(arrived/1e9))
		binary.NativeEndian.PutUint32(h[offFrameNsec:], uint32(arrived%1e9))
		binary.NativeEndian.PutUint32(h[offFrameSnaplen:], snapLen)
		binary.NativeEndian.PutUint32(h[offFrameLen:], 100)
		binary.NativeEndian.PutUint16(h[offFrameMac:], head)
		var b header
		b.init()
		b.write(100, MAC{}, MAC{}, false, 0, seq+uint32(i), arrived-1e6)
		copy(h[head:], b[:])
	}
}

func TestReceiveLoop(t *testing.T) {
	s := newSession(1)
	s.reset(1)
	r := &ring{memory: make([]byte, blockLen*blocks)}
	const each, rounds = 1000, 3 * blocks
	for i := range rounds {
		if r.take() != nil {
			t.Fatal("a block that the kernel has")
		}
		block := r.memory[i%blocks*blockLen:][:blockLen]
		fill(block, each, uint32(i*each))
		got := r.take()
		if got == nil || &got[0] != &block[0] {
			t.Fatalf("round %d: not the block in turn", i)
		}
		s.block(got)
		r.give(got)
	}
	c := s.result(0, []Sent{{Frames: each * rounds, Flows: 1}})
	if c.Distinct != each*rounds || c.Arrived != c.Distinct || c.Missing != 0 || c.Bytes != 100*c.Arrived || c.Reordered != 0 {
		t.Errorf("%+v", c)
	}
	if c.First != 5e9 || c.Last != 5e9+(each-1)*1000 || c.Latency.Max().Nanoseconds() != 1e6 {
		t.Errorf("from %d to %d, latency %v", c.First, c.Last, c.Latency.Max())
	}

	block, seq := make([]byte, blockLen), uint32(each*rounds)
	fill(block, each, seq)
	if n := testing.AllocsPerRun(100, func() { s.block(block) }); n != 0 {
		t.Errorf("%v allocations a block", n)
	}
}

// What is not this session's is counted apart.
func TestWhatDoesNotCount(t *testing.T) {
	s := newSession(10)
	s.reset(100)
	var h header
	h.init()
	write := func(flow, seq uint32, stamp int64) []byte {
		h.write(MinLen, MAC{}, MAC{}, false, flow, seq, stamp)
		return h[:]
	}
	s.frame(write(0, 0, 99), MinLen, 200)
	s.frame(write(10, 0, 100), MinLen, 200)
	s.frame(write(0, 1<<32-1, 100), MinLen, 200)
	s.frame(write(announcement, 0, 100), MinLen, 200)
	s.frame(write(0, 0, 100)[:20], 20, 200)
	s.frame(write(0, 0, 100), MinLen+4, 200)
	s.frame(write(9, 0, 100), MinLen, 200)
	c := s.result(3, []Sent{{Frames: 20, First: 5, Flows: 10}})
	want := Counts{Arrived: 1, Bytes: 60, Distinct: 1, Missing: 19, Unread: 3, Lost: 16, LossyFlows: 10, SilentFlows: 9,
		Foreign: 1, Announced: 1, Damaged: 3, Stale: 1, First: 200, Last: 200, Latency: c.Latency}
	if c != want {
		t.Errorf("\ngot  %+v\nwant %+v", c, want)
	}
}

// A block is believed only as far as it reaches.
func FuzzBlock(f *testing.F) {
	block := make([]byte, 1024)
	fill(block, 5, 0)
	f.Add(block)
	f.Add(block[:200])
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) < offBlockFirst+4 || binary.NativeEndian.Uint32(block[offBlockFrames:]) > 1<<16 {
			return // a block is never that short, and the rest is a matter of time
		}
		s := newSession(4)
		s.reset(0)
		s.block(block)
		c := s.result(0, nil)
		if c.Arrived != c.Distinct+c.Duplicated+c.Old || c.Arrived != c.Latency.Count() {
			t.Errorf("does not add up: %+v", c)
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	s := newSession(1)
	s.reset(1)
	block := make([]byte, blockLen)
	fill(block, 1000, 0)
	b.ReportAllocs()
	for b.Loop() {
		s.block(block)
		s.tracks.state[0] &^= 0xffffffff // the same frames are new again
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/1000, "ns/frame")
}
