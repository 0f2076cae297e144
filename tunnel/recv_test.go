package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// TestCongestion holds congestion against RFC 6040 figure 4, row by row.
func TestCongestion(t *testing.T) {
	const drop = 0xff
	for in, row := range [4][4]int{ // by inner, by outer: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE
		ecnNotECT: {0, 0, 0, drop},
		ecnECT1:   {1, 1, 1, 3},
		ecnECT0:   {2, 1, 2, 3},
		ecnCE:     {3, 3, 3, 3},
	} {
		for outer, want := range row {
			for _, p := range []inner{{}, {v6: true}, {tag: 5}, {tag: 5, v6: true, tcp: true}} {
				p.payload, p.tos = 20, 0xb8|uint8(in)
				b := p.finished()
				passes := congestion(0x48|uint8(outer), b)
				if passes != (want != drop) {
					t.Errorf("inner %d, outer %d: passes %t", in, outer, passes)
				}
				if want != drop {
					p.tos = 0xb8 | uint8(want)
				}
				if !bytes.Equal(b, p.finished()) {
					t.Errorf("inner %d, outer %d: is\n%x, want\n%x", in, outer, b, p.finished())
				}
			}
		}
	}
	for outer := range uint8(4) {
		if !congestion(outer, []byte{1, 2, 3}) || !congestion(outer, append(make([]byte, 12), 8, 6, 1, 2)) {
			t.Error("what is not IP does not pass")
		}
	}
}

// TestECT1 changes IPv4 headers of all checksums: 0 and ffff among them.
func TestECT1(t *testing.T) {
	for id := range 1 << 16 {
		b := inner{tos: ecnECT0}.finished()
		ip := b[14:34]
		binary.BigEndian.PutUint16(ip[4:], uint16(id))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip))
		frame.SetECT1(b)
		if naiveSum(ip) != 0xffff || ip[1] != ecnECT1 {
			t.Fatalf("%x sums to %#x", ip, naiveSum(ip))
		}
	}
}

// bfdFrame is a BFD control frame as far as a tunnel looks at it.
func bfdFrame() []byte {
	b := inner{payload: 24}.finished()
	copy(b, bfdMAC[:])
	binary.BigEndian.PutUint16(b[14+20+2:], bfdPort)
	return b
}

// TestControl: BFD's frames go to Control where there is one, and nowhere else;
// frames that somebody else sends to BFD's port are his.
func TestControl(t *testing.T) {
	for _, k := range kinds {
		space(t, 1500, func() error {
			var control [][]byte
			port := k.port
			k.port = func(c *PortConfig) {
				if port != nil {
					port(c)
				}
				if c.Remote.As16()[15] == 1 { // b's
					c.Control = func(b []byte) { control = append(control, bytes.Clone(b)) }
				}
			}
			r, err := newRig(k.rigConfig)
			if err != nil {
				return err
			}
			defer r.close()
			r.b.p.Unbind() // control frames need no bridge
			if err := r.a.p.WriteControl(bfdFrame()); err != nil {
				return err
			}
			if n := r.b.drain(); n != 0 || len(control) != 1 || !bytes.Equal(control[0], bfdFrame()) {
				return fmt.Errorf("%s: %d frames in the batch, control %x", k.name, n, control)
			}
			if a, b := r.a.p.Stats(), r.b.p.Stats(); a.TxControl != 1 || b.RxControl != 1 || r.b.p.LastHeard().IsZero() {
				return fmt.Errorf("%s: %+v, %+v", k.name, a, b)
			}
			r.b.p.Bind(20)
			other := bfdFrame()
			other[5] = 9
			if err := r.a.send(r.a.frames(other)); err != nil {
				return err
			}
			// Nobody behind b may speak for b's session, tagged or in segments.
			tagged := append(append(bytes.Clone(bfdFrame()[:12]), 0x81, 0, 0, 7), bfdFrame()[12:]...)
			long := inner{payload: 96, gso: 24}
			super := r.b.out(long)
			copy(super.F.Bytes(), bfdMAC[:])
			binary.BigEndian.PutUint16(super.F.Bytes()[14+20+2:], bfdPort)
			for i, o := range append(r.b.frames(bfdFrame(), tagged), super) {
				if n, errno := r.b.p.Send(0, &r.b.v, []frame.Out{o}); n != 0 || errno != unix.EPROTO {
					return fmt.Errorf("%s: forged frame %d: %d went out, %v", k.name, i, n, errno)
				}
			}
			if n, errno := r.a.p.Send(0, &r.a.v, r.a.frames(bfdFrame())); n != 0 || errno != unix.EPROTO {
				return fmt.Errorf("%s: forged where there is no session: %d went out, %v", k.name, n, errno)
			}
			if err := r.b.p.WriteControl(bfdFrame()); err != nil {
				return err
			}
			for _, x := range []*end{&r.a, &r.b} {
				got, err := x.receiveN(1)
				if err != nil {
					return fmt.Errorf("%s: %w", k.name, err)
				}
				if want := map[*end][]byte{&r.a: bfdFrame(), &r.b: other}[x]; !bytes.Equal(got[0].b, want) {
					return fmt.Errorf("%s: %x, want %x", k.name, got[0].b, want)
				}
			}
			return nil
		})
	}
}

// TestCursor receives a train that fits into no batch, a few frames at a time: each
// call gives as many as it may until nothing is left.
func TestCursor(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{})
		if err != nil {
			return err
		}
		defer r.close()
		// Datagrams that cannot be joined, as each is of another flow: one source port
		// is made for all by hand.
		r.a.p.fds = r.a.p.fds[:1]
		var outs []frame.Out
		var want [][]byte
		for i := range 60 {
			outs = append(outs, r.a.out(inner{sport: uint16(i), payload: 40}))
			want = append(want, wire(r.a.pool, outs[i])...)
		}
		for _, limit := range []int{1, 7, 60, 64} {
			if err := r.a.send(outs); err != nil {
				return err
			}
			var all [][]byte
			for {
				r.b.p.heard.Store(0)
				n, errno := r.b.e.Recv(0, r.b.batch, limit)
				if n > 0 && time.Since(r.b.p.LastHeard()) > time.Minute {
					return fmt.Errorf("limit %d: last heard %v", limit, r.b.p.LastHeard())
				}
				for _, f := range r.b.batch.Frames[:n] {
					all = append(all, bytes.Clone(f.Bytes()))
				}
				r.b.batch.Renew()
				if errno != 0 && errno != unix.EAGAIN {
					return errno
				}
				if n < limit {
					if q := r.b.e.queues[0]; len(q.rest) > 0 || q.at < q.n {
						return fmt.Errorf("limit %d: %d frames, and more in the cursor", limit, n)
					}
					break
				}
			}
			if err := equal(all, want); err != nil {
				return fmt.Errorf("limit %d: %w", limit, err)
			}
		}
		return nil
	})
}

// TestOrder: of many flows over two queues each keeps its order.
func TestOrder(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{queues: 2})
		if err != nil {
			return err
		}
		defer r.close()
		const flows, rounds = 40, 20
		next := [flows]uint32{}
		for round := range rounds {
			var outs []frame.Out
			for i := range flows {
				outs = append(outs, r.a.out(inner{tcp: true, v6: i%2 == 0, sport: uint16(i), seq: uint32(round * 100), payload: 100 - i}))
			}
			if err := r.a.send(outs); err != nil {
				return err
			}
			r.a.release(outs)
		}
		all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) == flows*rounds })
		if err != nil {
			return err
		}
		for _, b := range wireOf(r.b.pool, all) {
			l, err := frame.Parse(b)
			if err != nil {
				return err
			}
			flow, seq := binary.BigEndian.Uint16(b[l.L4:]), binary.BigEndian.Uint32(b[l.L4+4:])
			if seq != next[flow] {
				return fmt.Errorf("flow %d: sequence number %d, want %d", flow, seq, next[flow])
			}
			next[flow] += 100
		}
		return nil
	})
}

func TestSequence(t *testing.T) {
	for _, c := range []struct {
		seqs       []uint32
		gaps, late uint64
	}{
		{[]uint32{0, 1, 2, 3}, 0, 0},
		{[]uint32{1000, 1001}, 0, 0}, // we came late ourselves
		{[]uint32{5, 8, 9}, 2, 0},
		{[]uint32{5, 7, 6, 8}, 1, 1},
		{[]uint32{0xffffffff, 0, 1}, 0, 0},
		{[]uint32{0xfffffffe, 1}, 2, 0},
	} {
		var p Port
		for _, seq := range c.seqs {
			p.sequence(seq)
		}
		if s := p.Stats(); s.Gaps != c.gaps || s.Late != c.late {
			t.Errorf("%v: %d gaps, %d late; want %d, %d", c.seqs, s.Gaps, s.Late, c.gaps, c.late)
		}
	}
}

// TestSequenceOverWorkers: frames that two workers send by one port arrive in the order
// of their numbers.
func TestSequenceOverWorkers(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{kind: GRE, port: func(c *PortConfig) { c.Seq, c.Workers = true, 2 }})
		if err != nil {
			return err
		}
		defer r.close()
		const rounds, each = 200, 16
		var sending sync.WaitGroup
		pools := [2]*frame.Pool{r.a.pool, r.b.pool}
		for w := range 2 {
			x := &end{p: r.a.p, pool: pools[w]}
			outs := []frame.Out{}
			for i := range each {
				outs = append(outs, x.out(inner{sport: uint16(i), payload: 40}))
			}
			sending.Go(func() {
				for range rounds {
					for at := 0; at < each; {
						n, errno := r.a.p.Send(w, &x.v, outs[at:])
						if at += n; errno != 0 && errno != unix.EAGAIN {
							t.Errorf("worker %d: %v", w, errno)
							return
						}
					}
				}
			})
		}
		_, err = r.b.receiveN(2 * rounds * each)
		sending.Wait()
		if s := r.b.p.Stats(); s.Late != 0 || err != nil {
			return fmt.Errorf("%d frames came late, %v", s.Late, err)
		}
		return nil
	})
}

// TestDamage flips bits of what is under way: what is damaged either does not arrive,
// or arrives with the wrong checksum that it has, never with a right one.
func TestDamage(t *testing.T) {
	pool, err := frame.NewPool(frame.MaxBatch + 64)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	q, b := deafQueue(VXLAN), frame.NewBatch(pool)
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		var train []byte
		var sent [][]byte
		size := 0
		for i := range 8 {
			seg := vxlan(42, inner{tcp: true, seq: uint32(1000 * i), payload: 1000}.finished())
			size = len(seg)
			// Inside the inner TCP segment, which its own checksum covers.
			if at := vxlanLen + 34 + rnd.IntN(1020); rnd.IntN(3) == 0 {
				seg[at] ^= 1 << rnd.IntN(8)
			}
			sent = append(sent, bytes.Clone(seg[vxlanLen:]))
			train = append(train, seg...)
		}
		q.take(b, train, size)
		var all []got
		for _, f := range b.Frames[:b.N] {
			all = append(all, got{b: bytes.Clone(f.Bytes()), off: f.Offload})
		}
		b.Renew()
		if err := equal(wireOf(pool, all), sent); err != nil {
			t.Fatal(err)
		}
	}
}

// deafQueue makes a queue without a socket, of an endpoint with one port, number 9:
// from 10.0.0.1 with key 42.
func deafQueue(k Kind) *queue {
	e := &Endpoint{config: EndpointConfig{Kind: k}}
	p := &Port{peer: peer{0, mappedIPv4 | 10<<24 | 1}, inKey: 42, e: e, config: PortConfig{MSSClamp: true, Control: func([]byte) {}}}
	p.Bind(9)
	p.SetMTU(1000)
	e.demux.add(p)
	q := &queue{e: e, kind: k, from: p.peer, now: 1, joinUDP: true}
	e.queues = []*queue{q}
	return q
}

// take gives the queue a message of segments of size bytes, and fills b once.
func (q *queue) take(b *frame.Batch, message []byte, size int) {
	q.rest, q.cut = message, size
	q.coalescer.UDP = size < len(message)
	for len(q.rest) > 0 && b.N < frame.MaxBatch {
		q.segment(b)
	}
	q.rest = nil
	q.coalescer.Close()
}

// FuzzSegments receives hostile trains: whatever they are, frames come out that a
// switch can bear, and never more bytes than went in.
func FuzzSegments(f *testing.F) {
	f.Add(uint8(0), uint8(3), 100, append(vxlan(42, inner{tcp: true, payload: 38}.finished()), vxlan(42, inner{tcp: true, seq: 38, payload: 38}.finished())...))
	f.Add(uint8(0), uint8(1), 64, vxlan(42, inner{tag: 4, tos: 2, tcp: true, flags: 2, options: []byte{2, 4, 5, 180}}.finished()))
	f.Add(uint8(1), uint8(0), 1000, append(unhex(f, "20006558 0000002a"), inner{v6: true, payload: 9}.finished()...))
	f.Add(uint8(2), uint8(3), 1000, append(unhex(f, "01006558 00002a00 01020300"), bfdFrame()...))
	pool, err := frame.NewPool(frame.MaxBatch + 64)
	if err != nil {
		f.Fatal(err)
	}
	b := frame.NewBatch(pool)
	f.Fuzz(func(t *testing.T, kind, tos uint8, size int, message []byte) {
		if size < 1 || len(message) > rxBuffer || kind > 2 {
			return
		}
		q := deafQueue(Kind(kind))
		q.tos = tos
		in := len(message)
		q.take(b, bytes.Clone(message), size)
		out := 0
		for _, f := range b.Frames[:b.N] {
			out += f.Len()
			if f.Port != 9 {
				t.Errorf("a frame of port %d", f.Port)
			}
			if err := f.Check(); f.Fault == frame.FaultNone && err != nil {
				t.Errorf("a frame without fault: %v", err)
			}
		}
		if out > in {
			t.Errorf("%d bytes became %d", in, out)
		}
		b.Renew()
	})
}
