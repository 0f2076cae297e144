package sflow

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// A decoder written from the specification, not from the encoder: it reads field by
// field and knows no offsets.

type datagram struct {
	agent                 netip.Addr
	sub, sequence, uptime uint32
	flows                 []flow
	counters              []counter
}

type flow struct {
	sequence uint32
	Flow
}

type counter struct {
	sequence uint32
	Counters
}

type reader struct {
	t *testing.T
	b []byte
}

func (r *reader) bytes(n int) []byte {
	r.t.Helper()
	if n > len(r.b) {
		r.t.Fatalf("%d bytes wanted, %d are left", n, len(r.b))
	}
	var x []byte
	x, r.b = r.b[:n:n], r.b[n:]
	return x
}

func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.bytes(8)) }

// opaque reads variable-length opaque data (RFC 4506, section 4.10).
func (r *reader) opaque() []byte {
	n := int(r.u32())
	x := r.bytes(n)
	for _, pad := range r.bytes((4 - n%4) % 4) {
		if pad != 0 {
			r.t.Fatal("padding is not zero")
		}
	}
	return x
}

func (r *reader) is(want uint32, what string) {
	r.t.Helper()
	if got := r.u32(); got != want {
		r.t.Fatalf("%s is %d, want %d", what, got, want)
	}
}

func (r *reader) end(what string) {
	r.t.Helper()
	if len(r.b) != 0 {
		r.t.Fatalf("%s: %d bytes more than it should have", what, len(r.b))
	}
}

func decode(t *testing.T, b []byte) (d datagram) {
	t.Helper()
	r := &reader{t, b}
	r.is(5, "version")
	switch kind := r.u32(); kind {
	case 1:
		d.agent, _ = netip.AddrFromSlice(r.bytes(4))
	case 2:
		d.agent, _ = netip.AddrFromSlice(r.bytes(16))
	default:
		t.Fatalf("address type %d", kind)
	}
	d.sub, d.sequence, d.uptime = r.u32(), r.u32(), r.u32()
	for range r.u32() {
		switch format := r.u32(); format {
		case 1:
			d.flows = append(d.flows, decodeFlow(&reader{t, r.opaque()}))
		case 2:
			d.counters = append(d.counters, decodeCounters(&reader{t, r.opaque()}))
		default:
			t.Fatalf("sample of format %#x", format)
		}
	}
	r.end("datagram")
	return d
}

func decodeFlow(r *reader) (f flow) {
	f.sequence, f.Source = r.u32(), Source(r.u32())
	f.Rate, f.Pool, f.Drops, f.Input, f.Output = r.u32(), r.u32(), r.u32(), r.u32(), Output(r.u32())
	for range r.u32() {
		format := r.u32()
		x := &reader{r.t, r.opaque()}
		switch format {
		case 1:
			x.is(1, "header protocol")
			f.FrameLen = int(x.u32()) - 4
			x.is(4, "stripped")
			f.Header = x.opaque()
		case 1001:
			f.VLANIn, f.PriorityIn = uint16(x.u32()), uint8(x.u32())
			f.VLANOut, f.PriorityOut = uint16(x.u32()), uint8(x.u32())
		default:
			r.t.Fatalf("flow record of format %#x", format)
		}
		x.end("flow record")
	}
	r.end("flow sample")
	return f
}

func decodeCounters(r *reader) (c counter) {
	c.sequence = r.u32()
	source := r.u32()
	r.is(1, "number of records")
	r.is(1, "record's format")
	x := &reader{r.t, r.opaque()}
	r.end("counters sample")
	c.Index = x.u32()
	if source != c.Index {
		r.t.Fatalf("source %#x of interface %d", source, c.Index)
	}
	x.is(6, "ifType")
	c.Speed, c.Duplex, c.Status = x.u64(), x.u32(), x.u32()
	way := func() Way { return Way{x.u64(), x.u32(), x.u32(), x.u32(), x.u32(), x.u32()} }
	c.In = way()
	x.is(Unknown, "ifInUnknownProtos")
	c.Out = way()
	x.is(Unknown, "ifPromiscuousMode")
	x.end("generic interface counters")
	return c
}
