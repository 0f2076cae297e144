package loadgen

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// oracle judges arrivals by remembering all of them.
type oracle struct {
	seen map[[2]uint32]bool
	next map[uint32]uint64
}

func newOracle() *oracle { return &oracle{map[[2]uint32]bool{}, map[uint32]uint64{}} }

func (o *oracle) add(flow, seq uint32, window uint64) arrival {
	key, next := [2]uint32{flow, seq}, o.next[flow]
	switch {
	case uint64(seq) >= next:
		o.next[flow] = uint64(seq) + 1
		o.seen[key] = true
		return fresh
	case next-uint64(seq) > window:
		return old
	case o.seen[key]:
		return double
	}
	o.seen[key] = true
	return late
}

func (o *oracle) arrived(flow uint32) (n uint64) {
	for key := range o.seen {
		if key[0] == flow {
			n++
		}
	}
	return n
}

// mangle is a network: of frames in order it loses, doubles and delays some.
func mangle(r *rand.Rand, flows, frames int, depth int) (out [][2]uint32) {
	type delayed struct {
		frame [2]uint32
		until int
	}
	var held []delayed
	for k := range frames {
		frame := [2]uint32{uint32(k % flows), uint32(k / flows)}
		switch r.IntN(20) {
		case 0: // lost
		case 1, 2:
			held = append(held, delayed{frame, k + r.IntN(depth)})
		case 3:
			out = append(out, frame, frame)
		case 4:
			out = append(out, frame)
			held = append(held, delayed{frame, k + r.IntN(depth)})
		default:
			out = append(out, frame)
		}
		kept := held[:0]
		for _, d := range held {
			if d.until <= k {
				out = append(out, d.frame)
			} else {
				kept = append(kept, d)
			}
		}
		held = kept
		if r.IntN(1000) == 0 {
			out = out[:max(0, len(out)-r.IntN(200))] // a burst is lost
		}
	}
	return out
}

func TestTracksAgreeWithAnOracle(t *testing.T) {
	for _, test := range []struct{ flows, room, depth int }{
		{1, 1, 10}, {1, 1, 3000}, {3, 3, 100}, {64, 64, 3000}, {1000, 1000, 4000}, {5000, 5000, 9000},
		{2, 4096, 3000}, // windows of 64 frames: many are old
	} {
		t.Run(fmt.Sprintf("%d flows, %d deep", test.flows, test.depth), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(test.flows), uint64(test.depth)))
			s, o := newSession(test.room), newOracle()
			s.reset(0)
			frames := 200_000
			var want Counts
			var h header
			h.init()
			for _, f := range mangle(r, test.flows, frames, test.depth) {
				h.write(MinLen, MAC{}, MAC{}, false, f[0], f[1], 1)
				s.frame(h[:], MinLen, 2)
				want.Arrived++
				switch o.add(f[0], f[1], s.tracks.words*64) {
				case fresh:
					want.Distinct++
				case late:
					want.Distinct++
					want.Reordered++
				case double:
					want.Duplicated++
				case old:
					want.Old++
				}
			}
			sent := Sent{Frames: uint64(frames), Flows: test.flows}
			came := make([]uint64, test.flows)
			for key := range o.seen {
				came[key[0]]++
			}
			for flow, n := range came {
				if missing := sent.Of(flow) - n; missing > 0 {
					want.Missing += missing
					want.LossyFlows++
					if n == 0 {
						want.SilentFlows++
					}
				}
			}
			want.Lost = want.Missing
			if want.Missing == 0 || want.Reordered == 0 || want.Duplicated == 0 || (want.Old > 0) != (test.room == 4096) {
				t.Fatalf("the network was too kind: %+v", want)
			}
			got := s.result(0, []Sent{sent})
			want.Bytes, want.First, want.Last, want.Latency = got.Bytes, 2, 2, got.Latency
			if got != want {
				t.Errorf("\ngot  %+v\nwant %+v", got, want)
			}
			if got.Distinct+got.Missing != uint64(frames) || got.Arrived != got.Distinct+got.Duplicated+got.Old {
				t.Errorf("does not add up: %+v", got)
			}
		})
	}
}

// Any order of any numbers, each judged as the oracle does.
func FuzzTracks(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 200, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, o := newTracks(2048), newOracle() // windows of 128 frames
		for ; len(data) >= 2; data = data[2:] {
			flow, seq := uint32(data[0]>>7), uint32(data[0]&0x7f)<<8|uint32(data[1])
			if got, want := tr.add(flow, seq), o.add(flow, seq, 128); got != want {
				t.Fatalf("flow %d frame %d: %d, want %d", flow, seq, got, want)
			}
		}
		for flow := range uint32(2) {
			if got, want := tr.arrived(int(flow)), o.arrived(flow); got != want {
				t.Fatalf("flow %d: %d arrived, want %d", flow, got, want)
			}
		}
	})
}

func TestTrackEnds(t *testing.T) {
	tr := newTracks(1)
	const last = 1<<32 - 2
	for _, step := range []struct {
		seq  uint32
		want arrival
	}{
		{0, fresh}, {0, double}, {last - 1, fresh}, {last, fresh}, {last, double},
		{last - windowFrames + 1, late}, {last - windowFrames + 1, double}, {last - windowFrames, old}, {0, old},
	} {
		if got := tr.add(0, step.seq); got != step.want {
			t.Errorf("frame %d: %d, want %d", step.seq, got, step.want)
		}
	}
	if got := tr.arrived(0); got != 4 {
		t.Errorf("%d arrived", got)
	}
}

func TestWindowsReachBack(t *testing.T) {
	for _, flows := range []int{1, 2, 3, 100, 4096, 5000, 1_000_000} {
		tr := newTracks(flows)
		if tr.words == 0 || tr.words&(tr.words-1) != 0 {
			t.Errorf("%d flows: %d words", flows, tr.words)
		}
		// A window is rounded down to a power of two.
		if reach := uint64(flows) * tr.words * 64; reach < windowFrames/2 {
			t.Errorf("%d flows: windows of %d frames", flows, reach)
		}
		if bytes := len(tr.state) * 8; bytes > 16*flows+2*windowFrames/8 {
			t.Errorf("%d flows: %d bytes", flows, bytes)
		}
	}
}

func BenchmarkTracks(b *testing.B) {
	for _, flows := range []int{1, 1000, 1_000_000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			tr := newTracks(flows)
			b.ReportAllocs()
			flow, seq := uint32(0), uint32(0)
			for b.Loop() {
				tr.add(flow, seq)
				if flow++; flow == uint32(flows) {
					flow = 0
					seq++
				}
			}
		})
	}
}
