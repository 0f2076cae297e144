package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Linux cuts what Coalescer joined into what arrived, byte for byte.
func TestCoalesceAgainstKernel(t *testing.T) {
	w := newWire(t)
	frames := poolFrames(t, 200)
	r := rand.New(rand.NewPCG(35, 36))
	total, kinds := 0, map[string]int{}
	check := func(c *Coalescer, in []arrival) {
		t.Helper()
		batch := receive(c, frames[:199], in)
		for i, of := range apart(t, batch, frames[199]) {
			f := batch[i]
			if !f.Super() {
				continue
			}
			l, _ := Parse(of[0].b)
			kind := fmt.Sprintf("%#x %d tags=%d type=%#x", l.EtherType, l.Proto, l.Tags, f.GSOType)
			if f.Tag.Present() {
				f.PushTag(f.Tag)
			}
			// The wire shows what has the source address that is usual here.
			if !bytes.Equal(f.Bytes()[6:12], macSrc) {
				continue
			}
			got := w.through(f.Bytes(), f.Offload)
			if len(got) != len(of) {
				t.Fatalf("%s, %+v: Linux makes %d segments of %d that arrived", kind, f.Offload, len(got), len(of))
			}
			for k := range of {
				if !bytes.Equal(got[k], of[k].b) {
					t.Fatalf("%s: segment %d of %d:\n arrived % x\nLinux's % x", kind, k, len(of), of[k].b, got[k])
				}
			}
			total += len(of)
			kinds[kind]++
		}
	}
	var c Coalescer
	for range 150 {
		check(&c, traffic(r.IntN, 150))
	}
	for _, tt := range []struct {
		p       packet
		n, size int
	}{
		{packet{flags: 0x18}, 65535 - 40, 1460},
		{packet{flags: 0x18, tcpOpts: nops(12)}, 45 * 1448, 1448},
		{packet{v6: true, flags: 0x11}, 65535 - 60, 8000},
		{packet{flags: 0x98}, 900, 1}, // veth queues 1000 (net.core.netdev_max_backlog)
		{packet{udp: true}, 64 * 1000, 1000},
		{packet{udp: true, v6: true}, 63*1000 + 1, 1000},
	} {
		tt.p.payload = randomBytes(r, tt.n)
		var in []arrival
		for _, b := range wireFrames(tt.p, tt.size) {
			in = append(in, arrival{b, 1, true})
		}
		before := total
		if check(&c, in); total-before != len(in) {
			t.Errorf("%+v: only %d of %d segments came through", tt.p.flags, total-before, len(in))
		}
	}
	if total < 2000 || len(kinds) < 12 {
		t.Errorf("only %d segments of %d kinds were compared", total, len(kinds))
	}
	t.Logf("Linux cuts super-frames into the %d segments that arrived: %v", total, kinds)
}
