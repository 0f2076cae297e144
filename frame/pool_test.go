package frame

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestPool(t *testing.T) {
	const n = 2*colours + 1
	p := testPool(t, n)
	var got []*Frame
	for p.Free() > 0 {
		f := p.Get()
		f.Set(bytes.Repeat([]byte{byte(len(got))}, MaxLen))
		copy(f.Before(Headroom), bytes.Repeat([]byte{byte(len(got))}, Headroom))
		got = append(got, f)
	}
	if len(got) != n || p.Size() != n || p.Get() != nil {
		t.Fatalf("%d frames, want %d and then none", len(got), n)
	}
	for i, f := range got {
		want := bytes.Repeat([]byte{byte(i)}, Headroom+MaxLen)
		if !bytes.Equal(f.Before(Headroom), want[:Headroom]) || !bytes.Equal(f.Bytes(), want[Headroom:]) {
			t.Fatalf("frame %d overlaps another", i)
		}
	}
	f := got[2]
	if !p.Keep(f) {
		t.Fatal("a frame of no batch could not be kept")
	}
	p.Release(f)
	if p.Free() != 0 {
		t.Error("released once of two holds, and free")
	}
	p.Release(f)
	if p.Free() != 1 || p.Get() != f {
		t.Error("the frame released last is not the one handed out next")
	}
	noAllocs(t, "Pool", func() {
		p.Release(f)
		f = p.Get()
		p.Keep(f)
		p.Release(f)
	})
}

// A batch whose frames all stay in rings needs as many frames again: Keep takes
// no more than there are.
func TestKeepIsBounded(t *testing.T) {
	p := testPool(t, MaxBatch+2)
	b := NewBatch(p)
	b.N = 4
	kept := 0
	for _, f := range b.Frames[:4] {
		if p.Keep(f) {
			kept++
		}
	}
	if kept != 2 || p.Free() != 0 || p.Get() != nil {
		t.Fatalf("kept %d frames with 2 to spare, %d free", kept, p.Free())
	}
	if !p.Keep(b.Frames[0]) {
		t.Error("a frame that is kept already needs no other to be kept again")
	}
	p.Release(b.Frames[0])
	p.Release(b.Frames[0])
	if p.Free() != 1 || !p.Keep(b.Frames[3]) {
		t.Error("a place given back was not to be had again")
	}
	last := b.Frames[0]
	b.Renew()
	if b.N != 0 || b.Frames[0] != last {
		t.Error("a frame that nobody keeps did not stay in its batch")
	}
}

// One batch, rings that keep its frames for a while, and others that take and
// give frames, at random; the model is a count of holders for each frame.
func TestPoolAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	const n = MaxBatch + 40
	p := testPool(t, n)
	b := NewBatch(p)
	holds := map[*Frame]int{} // by rings and others, without the batch
	var ring []*Frame         // once for each hold
	inBatch := func() map[*Frame]bool {
		m := map[*Frame]bool{}
		for _, f := range b.Frames {
			m[f] = true
		}
		return m
	}
	check := func(what string) {
		t.Helper()
		m := inBatch()
		if len(m) != MaxBatch {
			t.Fatalf("%s: a frame is twice in the batch", what)
		}
		used := MaxBatch
		for f, k := range holds {
			if k > 0 {
				used++ // its own buffer, or the one that will take its place
			}
			want := k
			if m[f] {
				want++
			}
			if int(f.refs) != want {
				t.Fatalf("%s: a frame counts %d holders, want %d", what, f.refs, want)
			}
		}
		if p.Free() != n-used {
			t.Fatalf("%s: %d free, want %d", what, p.Free(), n-used)
		}
	}
	hold := func(f *Frame) {
		holds[f]++
		ring = append(ring, f)
	}
	for range 5000 {
		switch r.IntN(6) {
		case 0:
			b.Renew()
			b.N = r.IntN(MaxBatch + 1)
			check("Renew")
		case 1, 2:
			if b.N == 0 {
				continue
			}
			f := b.Frames[r.IntN(b.N)]
			could := holds[f] > 0 || p.Free() > 0
			if p.Keep(f) != could {
				t.Fatalf("Keep with %d free says %v", p.Free(), !could)
			}
			if could {
				hold(f)
			}
			check("Keep")
		case 3:
			could := p.Free() > 0
			f := p.Get()
			if (f != nil) != could {
				t.Fatalf("Get gives %v, could give: %v", f, could)
			}
			if f != nil {
				hold(f)
			}
			check("Get")
		default:
			if len(ring) == 0 {
				continue
			}
			i := r.IntN(len(ring))
			f := ring[i]
			ring[i] = ring[len(ring)-1]
			ring = ring[:len(ring)-1]
			holds[f]--
			p.Release(f)
			check("Release")
		}
	}
	for _, f := range ring {
		p.Release(f)
	}
	b.Renew()
	if p.Free() != n-MaxBatch {
		t.Errorf("%d free at the end, want %d", p.Free(), n-MaxBatch)
	}
}
