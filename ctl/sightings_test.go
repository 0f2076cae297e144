package ctl

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vswitch/capture"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

func TestSightingComment(t *testing.T) {
	in, out := capture.Inbound, capture.Outbound
	for want, s := range map[string]vswitch.Sighting{
		"br0 veth1 in":                              {Direction: in, Port: "veth1"},
		"br0 veth1 in vlan 10":                      {Direction: in, Port: "veth1", VLAN: 10},
		"br0 veth1 in vlan 10 -> veth2":             {Direction: in, Port: "veth1", VLAN: 10, Output: "veth2", Outputs: 1},
		"br0 veth1 in -> veth2 and 4 more":          {Direction: in, Port: "veth1", Output: "veth2", Outputs: 5},
		"br0 veth1 in: dropped: vlan-not-trunked":   {Direction: in, Port: "veth1", Reason: vswitch.DropVLANNotTrunked},
		"br0 veth2 out vlan 10":                     {Direction: out, Port: "veth2", VLAN: 10},
		"br0 vx0 out: dropped: mtu-exceeded":        {Direction: out, Port: "vx0", Reason: vswitch.DropMTU},
		"br0 veth1 out, made by the switch":         {Direction: out, Port: "veth1", Own: true},
		"br0 veth1 in, stands for 1+41 frames":      {Direction: in, Port: "veth1", Skipped: 41},
		"br0 v in -> w, stands for 1+9 frames":      {Direction: in, Port: "v", Output: "w", Outputs: 1, Skipped: 9},
		"br0 vx0 out vlan 7: dropped: mtu-exceeded": {Direction: out, Port: "vx0", VLAN: 7, Reason: vswitch.DropMTU},
	} {
		s.Bridge = "br0"
		if got := sightingComment(&s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// superFrame is TCP over IPv4 with an unfinished checksum: n bytes of payload, to be
// cut into segments of size.
func superFrame(n, size int) ([]byte, frame.Offload) {
	b := make([]byte, 54+n)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45")
	binary.BigEndian.PutUint16(b[16:], uint16(40+n))
	copy(b[22:], "\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x13\x88\x00\x50")
	binary.BigEndian.PutUint16(b[24:], ^frame.Sum(b[14:34], 0))
	b[46], b[47] = 0x50, 0x18
	for i := range n {
		b[54+i] = byte(i)
	}
	binary.BigEndian.PutUint16(b[50:], frame.Sum(nil, frame.Pseudo(b[26:34], frame.ProtoTCP, 20+n)))
	o := frame.Offload{Flags: frame.NeedsCsum, CsumStart: 34, CsumOffset: 16}
	if size < n {
		o.GSOType, o.GSOSize, o.HdrLen = frame.GSOTCPv4, uint16(size), 54
	}
	return b, o
}

// checksumRight reports whether a frame's TCP checksum is right, behind tagLen bytes of
// tag.
func checksumRight(b []byte, tagLen int) bool {
	ip := b[14+tagLen:]
	n := int(binary.BigEndian.Uint16(ip[2:]))
	return frame.Sum(ip[20:n], frame.Pseudo(ip[12:20], frame.ProtoTCP, n-20)) == 0xffff && frame.Sum(ip[:20], 0) == 0xffff
}

// What comes out of wire is what was on the wire.
func TestWire(t *testing.T) {
	tag := frame.Tag{TPID: frame.TPID8021Q, TCI: 10}
	for _, tc := range []struct {
		name        string
		payload     int
		split       bool
		keep, snap  int // keep: bytes of the frame that are here; 0: all
		tag         frame.Tag
		lens, wires []int // of what comes out
		sums        bool  // are right
		note        string
	}{
		{name: "a frame", payload: 100, lens: []int{154}, wires: []int{154}, sums: true},
		{name: "with a tag", payload: 100, tag: tag, lens: []int{158}, wires: []int{158}, sums: true},
		{name: "with little kept", payload: 100, keep: 60, tag: tag, lens: []int{64}, wires: []int{158}},
		{name: "with little wanted", payload: 100, snap: 60, tag: tag, lens: []int{60}, wires: []int{158}},
		{name: "super", payload: 2500, lens: []int{2554}, wires: []int{2554}, sums: true},
		{name: "super, split", payload: 2500, split: true, lens: []int{1054, 1054, 554}, wires: []int{1054, 1054, 554}, sums: true},
		{name: "super, split, with a tag", payload: 2500, split: true, tag: tag, lens: []int{1058, 1058, 558}, wires: []int{1058, 1058, 558}, sums: true},
		{name: "super, split, little wanted", payload: 2500, split: true, snap: 54, lens: []int{54, 54, 54}, wires: []int{1054, 1054, 554}},
		{name: "super, split, little kept", payload: 2500, split: true, keep: 100, lens: []int{100}, wires: []int{2554}, note: "a super-frame, of which too little is here to split it"},
		{name: "one that is none, split", payload: 100, split: true, lens: []int{154}, wires: []int{154}, sums: true},
		{name: "a runt", payload: 100, keep: 8, tag: tag, lens: []int{8}, wires: []int{158}},
	} {
		w := newWire(tc.split, tc.snap)
		data, o := superFrame(tc.payload, 1000)
		h := heldFrame{data, tc.tag, o, len(data)}
		tagLen := 0
		if tc.tag.Present() {
			tagLen = frame.TagLen
			h.wireLen += tagLen
		}
		if tc.keep > 0 {
			h.data = h.data[:tc.keep]
		}
		before := bytes.Clone(h.data)
		for range 2 { // it is used again
			i := 0
			w.frames(&h, func(b []byte, wireLen int, note string) bool {
				if i >= len(tc.lens) || len(b) != tc.lens[i] || wireLen != tc.wires[i] || note != tc.note {
					t.Errorf("%s: %d: %d bytes of %d, %q", tc.name, i, len(b), wireLen, note)
				} else if tc.sums && !checksumRight(b, tagLen) {
					t.Errorf("%s: %d: its checksum is wrong", tc.name, i)
				} else if tagLen > 0 && len(b) > 16 && binary.BigEndian.Uint32(b[12:]) != 0x8100000a {
					t.Errorf("%s: %d: no tag", tc.name, i)
				}
				i++
				return true
			})
			if i != len(tc.lens) {
				t.Errorf("%s: %d frames", tc.name, i)
			}
		}
		if !bytes.Equal(before, h.data) {
			t.Errorf("%s: the frame was changed", tc.name)
		}
		// Whoever has enough gets no more.
		calls := 0
		w.frames(&h, func([]byte, int, string) bool { calls++; return false })
		if calls != 1 {
			t.Errorf("%s: called %d times after it was enough", tc.name, calls)
		}
		w.close()
	}
}

// A super-frame that contradicts itself is shown as it is.
func TestWireLies(t *testing.T) {
	w := newWire(true, 0)
	defer w.close()
	for _, change := range []func(*frame.Offload){
		func(o *frame.Offload) { o.GSOType = frame.GSOUDP },
		func(o *frame.Offload) { o.GSOType = frame.GSOTCPv6 },
		func(o *frame.Offload) { o.CsumStart = 60000 },
		func(o *frame.Offload) { o.GSOSize = 0 },
		func(o *frame.Offload) { o.GSOSize = 1 },
		func(o *frame.Offload) { o.Flags = 0 },
	} {
		data, o := superFrame(2500, 1000)
		change(&o)
		n := 0
		w.frames(&heldFrame{data: data, offload: o, wireLen: len(data)}, func(b []byte, wireLen int, note string) bool {
			n++
			if len(b) != len(data) || wireLen != len(data) || note != "a super-frame that cannot be split" {
				t.Errorf("%+v: %d bytes, %q", o, len(b), note)
			}
			return true
		})
		if n != 1 {
			t.Errorf("%+v: %d frames", o, n)
		}
	}
}

func FuzzWire(f *testing.F) {
	data, o := superFrame(250, 100)
	f.Add(data, o.Flags, o.GSOType, o.HdrLen, o.GSOSize, o.CsumStart, o.CsumOffset, uint16(10), 0)
	w := newWire(true, 0)
	defer w.close()
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, hdrLen, size, start, offset, tci uint16, more int) {
		if len(b) > frame.MaxLen {
			return
		}
		h := heldFrame{data: b, offload: frame.Offload{Flags: flags, GSOType: gso, HdrLen: hdrLen, GSOSize: size, CsumStart: start, CsumOffset: offset}, wireLen: len(b) + max(more, 0)%100}
		if tci != 0 {
			h.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: tci}
			h.wireLen += frame.TagLen
		}
		n := 0
		w.frames(&h, func(data []byte, wireLen int, _ string) bool {
			n++
			if len(data) > wireLen {
				t.Errorf("%d bytes of %d", len(data), wireLen)
			}
			return true
		})
		if n == 0 {
			t.Error("nothing comes out")
		}
	})
}
