package probe

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"vswitch/frame"
)

func example() Probe {
	return Probe{
		Dst: [6]byte{2, 0, 0, 0, 0, 2}, Src: [6]byte{2, 0, 0, 0, 0, 1}, Kind: Path, Hop: 2, TTL: MaxTTL,
		ID: ID{1, 2, 3, 4, 5, 6, 7, 8}, Span: 0xa0b0c0d0, Sent: 1 << 60,
	}
}

// The layout is that of the drawing in doc.go.
func TestLayout(t *testing.T) {
	p := example()
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
		'v', 's', 'w', 'i', 't', 'c', 'h', 1,
		1, 2, 16, 0,
		1, 2, 3, 4, 5, 6, 7, 8,
		0xa0, 0xb0, 0xc0, 0xd0,
		0x10, 0, 0, 0, 0, 0, 0, 0,
		0, 0,
	}
	if !bytes.Equal(b[:HeaderLen], want) || len(want) != HeaderLen {
		t.Errorf("got  %x\nwant %x", b[:HeaderLen], want)
	}
	if len(b) != MinLen || !bytes.Equal(b[HeaderLen:], make([]byte, MinLen-HeaderLen)) {
		t.Errorf("%d bytes: %x", len(b), b[HeaderLen:])
	}
	pool, err := frame.NewPool(1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	f := pool.Get()
	f.Set(b)
	if !f.Probe() {
		t.Error("package frame does not know it for a probe")
	}
}

func TestRoundTrip(t *testing.T) {
	for range 2000 {
		p := Probe{Kind: Kind(1 + rand.N(4)), TTL: uint8(1 + rand.N(MaxTTL)), Span: rand.Uint32(), Sent: rand.Int64(), Len: rand.N(9000)}
		p.Hop = uint8(1 + rand.N(int(p.TTL)))
		p.Dst[rand.N(6)], p.Src[rand.N(6)], p.ID[rand.N(8)] = 7, 8, 9
		switch p.Kind {
		case Report:
			p.Payload = bytes.Repeat([]byte{1}, 1+rand.N(MaxPayload))
		case EchoReply:
			p.Payload = EchoLen(rand.N(65536))
		}
		b, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Len = max(p.Len, MinLen, HeaderLen+len(p.Payload))
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("%+v became %+v, %v", p, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		with func(b []byte) []byte
		want error
	}{
		{"nothing", func([]byte) []byte { return nil }, ErrShort},
		{"cut in the header", func(b []byte) []byte { return b[:HeaderLen-1] }, ErrShort},
		{"another EtherType", func(b []byte) []byte { b[13]++; return b }, ErrMagic},
		{"another magic", func(b []byte) []byte { b[magicAt] = 'V'; return b }, ErrMagic},
		{"another version", func(b []byte) []byte { b[kindAt-1]++; return b }, ErrMagic},
		{"kind 0", func(b []byte) []byte { b[kindAt] = 0; return b }, ErrKind},
		{"kind 5", func(b []byte) []byte { b[kindAt] = 5; return b }, ErrKind},
		{"reserved bits", func(b []byte) []byte { b[reservedAt] = 1; return b }, ErrKind},
		{"TTL 0", func(b []byte) []byte { b[ttlAt], b[hopAt] = 0, 0; return b }, ErrTTL},
		{"TTL 17", func(b []byte) []byte { b[ttlAt] = 17; return b }, ErrTTL},
		{"hop 0", func(b []byte) []byte { b[hopAt] = 0; return b }, ErrTTL},
		{"hop beyond TTL", func(b []byte) []byte { b[hopAt] = 17; return b }, ErrTTL},
		{"a payload where none belongs", func(b []byte) []byte { b[lengthAt+1] = 1; return b }, ErrPayload},
		{"a payload beyond the frame", func(b []byte) []byte { b[kindAt], b[lengthAt+1] = byte(Report), 255; return b }, ErrPayload},
		{"a payload beyond the bound", func(b []byte) []byte {
			b[kindAt], b[lengthAt], b[lengthAt+1] = byte(Report), 4, 1
			return append(b, make([]byte, 2000)...)
		}, ErrPayload},
		{"a report without payload", func(b []byte) []byte { b[kindAt] = byte(Report); return b }, ErrPayload},
		{"a reply without length", func(b []byte) []byte { b[kindAt], b[lengthAt+1] = byte(EchoReply), 3; return b }, ErrPayload},
	} {
		p := example()
		b, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(tc.with(b)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for _, with := range []func(*Probe){
		func(p *Probe) { p.Kind = 0 },
		func(p *Probe) { p.TTL = 17 },
		func(p *Probe) { p.Hop = 0 },
		func(p *Probe) { p.Payload = []byte{1} },
		func(p *Probe) { p.Kind, p.Payload = Report, make([]byte, MaxPayload+1) },
		func(p *Probe) { p.Len = frame.MaxLen + 1 },
	} {
		p := example()
		with(&p)
		if b, err := p.Append(nil); err == nil || len(b) > 0 {
			t.Errorf("%+v is written", p)
		}
	}
}

func TestHopRoundTrip(t *testing.T) {
	key := uint32(42)
	h := Hop{
		Span: 9, Host: "hostB", Bridge: "br0", Port: "vx0", VLAN: 10, Known: true,
		Outs:  []Out{{Port: "vx1", Type: "vxlan", Remote: "10.0.0.3", Key: &key, Span: 7}, {Bridge: "br1", Port: "veth9"}},
		Drops: []Drop{{Port: "vx2", Out: true, Reason: "mtu-exceeded"}}, Dwell: 40 * time.Microsecond,
		Other: &Elsewhere{VLAN: 20, Port: "veth1"}, Not: []string{"vx3: the port is down"},
	}
	b, err := h.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeHop(b)
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v became %+v, %v", h, got, err)
	}
}

// However many outputs there are, and however long names are: a report fits, and all
// outputs are counted.
func TestHopAlwaysFits(t *testing.T) {
	for _, n := range []int{0, 1, 12, 64, 65, 1000} {
		for _, name := range []string{"p", strings.Repeat("n", 200), strings.Repeat("\x01é\"", 90)} {
			h := Hop{Host: name, Bridge: name, Port: name, Other: &Elsewhere{Port: name}}
			for i := range n {
				h.Outs = append(h.Outs, Out{Port: name, Remote: name, Span: uint32(i % 2)})
				h.Drops = append(h.Drops, Drop{Port: name, Reason: name})
				h.Not = append(h.Not, name)
			}
			b, err := h.Append(nil)
			if err != nil || len(b) > MaxPayload {
				t.Fatalf("%d outputs of %q: %d bytes, %v", n, name, len(b), err)
			}
			got, err := DecodeHop(b)
			if err != nil || len(got.Outs)+got.More != n {
				t.Errorf("%d outputs became %d and %d, %v", n, len(got.Outs), got.More, err)
			}
			if n == 12 && len(got.Outs) > 0 && got.Outs[0].Span == 0 {
				t.Error("outputs that no copy was sent by are told first")
			}
		}
	}
}

func TestDecodeHopRefuses(t *testing.T) {
	for _, text := range []string{
		``, `null x`, `[]`, `{"host":1}`, `{"host":"a"} {}`, `{"unknown":1}`, `{"more":-1}`, `{"dwell":-1}`, `{"vlan":4096}`, `{"vlan":70000}`,
		`{"other":{"vlan":4096}}`, `{"drops":[{},{},{},{},{}]}`, `{"not":["","","","",""]}`, `{"outs":[` + strings.Repeat(`{},`, 64) + `{}]}`,
		`{"host":"` + strings.Repeat("a", MaxPayload) + `"}`,
	} {
		if h, err := DecodeHop([]byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, h)
		}
	}
}

func TestTextIsCleaned(t *testing.T) {
	h, err := DecodeHop([]byte(`{"host":"a\u001b[31mb","br":"` + strings.Repeat("ü", 60) + `","in":"x\ny","outs":[{"p":"\u202e"}],"drops":[{"p":"","why":"\u0000"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if h.Host != "a?[31mb" || h.Bridge != strings.Repeat("ü", 32) || h.Port != "x?y" || h.Outs[0].Port != "?" || h.Drops[0].Reason != "?" {
		t.Errorf("%+v", h)
	}
}

func FuzzDecode(f *testing.F) {
	for k := Path; k < numKinds; k++ {
		p := example()
		p.Kind = k
		switch k {
		case Report:
			p.Payload, _ = Hop{Host: "h", Bridge: "b", Port: "p", Outs: []Out{{Port: "o"}}}.Append(nil)
		case EchoReply:
			p.Payload = EchoLen(1500)
		}
		b, err := p.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > frame.MaxLen {
			return
		}
		p, err := Decode(b)
		if err != nil {
			return
		}
		// What is taken can be written again, and is the same.
		again, err := p.Append(nil)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		q, err := Decode(again)
		q.Len = p.Len
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
		if p.Kind == Report {
			if h, err := DecodeHop(p.Payload); err == nil {
				checkHop(t, h)
			}
		}
	})
}

func FuzzDecodeHop(f *testing.F) {
	b, _ := Hop{Host: "h", Bridge: "b", Port: "p", Outs: []Out{{Port: "o", Span: 1}}, Drops: []Drop{{Port: "x", Reason: "y"}}, Other: &Elsewhere{}}.Append(nil)
	f.Add(b)
	f.Add([]byte(`{"host":"\ud800"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHop(b)
		if err != nil {
			return
		}
		checkHop(t, h)
		if again, err := h.Append(nil); err != nil || len(again) > MaxPayload {
			t.Fatalf("%+v is written as %d bytes, %v", h, len(again), err)
		}
	})
}

func checkHop(t *testing.T, h Hop) {
	t.Helper()
	texts := append([]string{h.Host, h.Bridge, h.Port}, h.Not...)
	for _, o := range h.Outs {
		texts = append(texts, o.Bridge, o.Port, o.Type, o.Remote)
	}
	for _, d := range h.Drops {
		texts = append(texts, d.Bridge, d.Port, d.Reason)
	}
	for _, s := range texts {
		if len(s) > MaxText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q may not be shown", s)
		}
	}
}
