package tunnel

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// works are what is sent in benchmarks: frames of one batch.
var works = []struct {
	name  string
	count int
	frame func(i int) inner
}{
	{"64KiB-TCP", 1, func(int) inner { return inner{tcp: true, payload: 64000, gso: 1366} }},
	{"64KiB-TCP×8", 8, func(i int) inner { return inner{tcp: true, seq: uint32(64000 * i), payload: 64000, gso: 1366} }},
	{"64-byte×64", 64, func(int) inner { return inner{payload: 22} }},
	{"64-byte×64-flows", 64, func(i int) inner { return inner{payload: 22, sport: uint16(i)} }},
	{"1400-byte×64", 64, func(int) inner { return inner{payload: 1350, partial: true} }},
}

// drain receives and throws away until nothing waits, and returns how many frames.
func (x *end) drain() (n int) {
	for q := range x.e.Queues() {
		for {
			got, _ := x.e.Recv(q, x.batch, frame.MaxBatch)
			n += got
			x.batch.Renew()
			if got < frame.MaxBatch {
				break
			}
		}
	}
	return n
}

func run(b *testing.B, k rigConfig, f func(b *testing.B, r *rig, outs []frame.Out)) {
	for _, w := range works {
		b.Run(w.name, func(b *testing.B) {
			b.Helper()
			space(b, 1500, func() error {
				r, err := newRig(k)
				if err != nil {
					return err
				}
				defer r.close()
				var outs []frame.Out
				bytes := 0
				for i := range w.count {
					outs = append(outs, r.a.out(w.frame(i)))
					bytes += outs[i].F.Len()
				}
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				f(b, r, outs)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*w.count), "ns/frame")
				return nil
			})
		})
	}
}

// BenchmarkSend sends into a loopback that nobody hears: the far socket's filter
// drops what comes.
func BenchmarkSend(b *testing.B) {
	for _, k := range []rigConfig{{kind: VXLAN}, {kind: GRE}} {
		b.Run(k.kind.String(), func(b *testing.B) {
			run(b, k, func(b *testing.B, r *rig, outs []frame.Out) {
				dropAll(r.b.e.FD(0))
				for b.Loop() {
					if n, errno := r.a.p.Send(0, &r.a.v, outs); n != len(outs) {
						b.Errorf("%d of %d went out: %v", n, len(outs), errno)
						return
					}
				}
			})
		})
	}
}

// BenchmarkRecv receives what was sent while the clock stood still.
func BenchmarkRecv(b *testing.B) {
	for _, k := range []rigConfig{{kind: VXLAN}, {kind: GRE}} {
		b.Run(k.kind.String(), func(b *testing.B) {
			run(b, k, func(b *testing.B, r *rig, outs []frame.Out) {
				for range b.N {
					b.StopTimer()
					if err := r.a.send(outs); err != nil {
						b.Error(err)
						return
					}
					b.StartTimer()
					if r.b.drain() == 0 {
						b.Error("nothing came")
						return
					}
				}
			})
		})
	}
}

// BenchmarkThrough sends and receives.
func BenchmarkThrough(b *testing.B) {
	for _, k := range []rigConfig{{kind: VXLAN}, {kind: GRE}} {
		b.Run(k.kind.String(), func(b *testing.B) {
			run(b, k, func(b *testing.B, r *rig, outs []frame.Out) {
				for b.Loop() {
					if n, errno := r.a.p.Send(0, &r.a.v, outs); n != len(outs) {
						b.Errorf("%d of %d went out: %v", n, len(outs), errno)
						return
					}
					r.b.drain()
				}
			})
		})
	}
}

// TestNoAllocations: neither sending nor receiving allocates.
func TestNoAllocations(t *testing.T) {
	for _, k := range kinds {
		for _, w := range works {
			space(t, 1500, func() error {
				r, err := newRig(k.rigConfig)
				if err != nil {
					return err
				}
				defer r.close()
				var outs []frame.Out
				for i := range w.count {
					outs = append(outs, r.a.out(w.frame(i)))
				}
				var n int
				var errno unix.Errno
				got := 0
				allocs := testing.AllocsPerRun(20, func() {
					n, errno = r.a.p.Send(0, &r.a.v, outs)
					got += r.b.drain()
				})
				if n != len(outs) || errno != 0 || got == 0 {
					return fmt.Errorf("%s, %s: %d went out, then %v; %d came", k.name, w.name, n, errno, got)
				}
				if allocs > 0 {
					return fmt.Errorf("%s, %s: %v allocations", k.name, w.name, allocs)
				}
				return nil
			})
		}
	}
}
