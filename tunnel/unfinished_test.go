package tunnel

import (
	"bytes"
	"testing"

	"vswitch/frame"
)

// TestUnfinished receives what a kernel's tunnel device sends over a veth, and what
// receive offload made of GRE packets: what leaves the switch is right.
func TestUnfinished(t *testing.T) {
	pool, err := frame.NewPool(frame.MaxBatch + 64)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b := frame.NewBatch(pool)
	for _, k := range []Kind{VXLAN, GRE} {
		for _, p := range []inner{
			{tcp: true, payload: 100}, {tcp: true, v6: true, payload: 501}, {payload: 100}, {v6: true, payload: 333},
			{tcp: true, tag: 7, payload: 900}, {tcp: true, payload: 0},
			{tcp: true, payload: 60000}, {tcp: true, v6: true, payload: 50001, tag: 5}, {tcp: true, payload: 3000, options: bytes.Repeat([]byte{1}, 12)},
		} {
			p.partial = true
			bare, o := p.build()
			head := unhex(t, "08000000 00002a00")
			if k == GRE {
				head = unhex(t, "20006558 0000002a")
			}
			q := deafQueue(k) // MTU 1000
			message := append(head, bare...)
			q.take(b, message, len(message))
			if b.N != 1 {
				t.Fatalf("%+v: %d frames", p, b.N)
			}
			f := b.Frames[0]
			if err := f.Check(); err != nil || f.Flags != frame.NeedsCsum || f.Super() != (p.payload > 1000) {
				t.Errorf("%+v: %+v, %v", p, f.Offload, err)
			}
			got := wireOf(pool, []got{{b: f.Bytes(), off: f.Offload}})
			if p.payload > 1000 {
				// As the segmenter cuts it for whom it is made.
				o.GSOSize, o.GSOType, o.HdrLen = f.GSOSize, f.GSOType, uint16(len(bare)-p.payload)
			}
			g := pool.Get()
			g.Set(bare)
			g.Offload = o
			g.PopTag()
			want := wire(pool, frame.Out{F: g})
			pool.Release(g)
			if err := equal(got, want); err != nil {
				t.Errorf("%+v: %v", p, err)
			}
			for _, w := range got {
				if len(w) > 14+superMTU {
					t.Errorf("%+v: a segment of %d bytes", p, len(w))
				}
			}
			b.Renew()

			// A finished one, and one that was damaged, stay what they are.
			for _, damage := range []byte{0, 1} {
				fin := p.finished()
				fin[len(fin)-1] ^= damage
				message = append(head[:8:8], fin...)
				q.take(b, message, len(message))
				if f := b.Frames[0]; f.Flags != 0 || f.Super() {
					t.Errorf("%+v: a finished one became %+v", p, f.Offload)
				}
				b.Renew()
			}
		}
	}
}

// TestUnfinishedOverJumbo: on a path of 9000 bytes several segments that were joined are
// shorter than one could be, and are cut all the same.
func TestUnfinishedOverJumbo(t *testing.T) {
	b, _ := inner{tcp: true, payload: 5 * 1448, partial: true}.build()
	o, ok := unfinished(b, 8962)
	if !ok || o.GSOType != frame.GSOTCPv4 || o.GSOSize == 0 || !joined(b, 8962) {
		t.Errorf("%+v, %v: want a super-frame", o, ok)
	}
	if o, ok := unfinished(b[:14+40+1000], 8962); ok {
		t.Errorf("a piece of one: %+v", o)
	}
}

// TestUnfinishedSYN: a SYN whose checksum is left open is clamped, and stays open.
func TestUnfinishedSYN(t *testing.T) {
	pool, err := frame.NewPool(frame.MaxBatch + 64)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b := frame.NewBatch(pool)
	for _, tag := range []uint16{0, 7} {
		p := inner{tcp: true, flags: 0x02, tag: tag, options: []byte{2, 4, 1460 >> 8, 1460 & 0xff}, partial: true}
		bare, _ := p.build()
		q := deafQueue(VXLAN) // MTU 1000
		message := append(unhex(t, "08000000 00002a00"), bare...)
		q.take(b, message, len(message))
		f := b.Frames[0]
		want := 960
		if tag != 0 {
			want -= 4
		}
		if f.Flags != frame.NeedsCsum || mss(f.Bytes()) != want {
			t.Errorf("tag %d: MSS %d, want %d; %+v", tag, mss(f.Bytes()), want, f.Offload)
		}
		p.options, p.partial = []byte{2, 4, byte(want >> 8), byte(want)}, false
		finished := wireOf(pool, []got{{b: f.Bytes(), off: f.Offload}})
		p.tag = 0 // it is in f.Tag
		if err := equal(finished, [][]byte{p.finished()}); err != nil {
			t.Errorf("tag %d: %v", tag, err)
		}
		b.Renew()
	}
}

// TestJoinedChecksum: receive offload leaves the first GRE checksum standing.
func TestJoinedChecksum(t *testing.T) {
	pool, err := frame.NewPool(frame.MaxBatch + 64)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b := frame.NewBatch(pool)
	for _, c := range []struct {
		name string
		p    inner
		want frame.Fault
	}{
		{"joined", inner{tcp: true, payload: 5000, partial: true}, frame.FaultNone},
		{"one", inner{tcp: true, payload: 500, partial: true}, frame.FaultChecksum},
		{"long, and finished", inner{tcp: true, payload: 5000}, frame.FaultChecksum},
	} {
		bare, _ := c.p.build()
		message := append(unhex(t, "a0006558 12340000 0000002a"), bare...)
		q := deafQueue(GRE)
		q.take(b, message, len(message))
		if b.N != 1 || b.Frames[0].Fault != c.want {
			t.Errorf("%s: %d frames, fault %d", c.name, b.N, b.Frames[0].Fault)
		}
		b.Renew()
	}
}
