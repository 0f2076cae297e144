package bfd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"vswitch/frame"
)

var testAddresses = Addresses{
	DstMAC: peerMAC, SrcMAC: [6]byte{0x02, 1, 2, 3, 4, 5},
	SrcIP: ipHigh, DstIP: ipLow, SrcPort: 49152,
}

func TestFrameBytes(t *testing.T) {
	want, err := hex.DecodeString(strings.Join(strings.Fields(`
		002320000001 020102030405 0800
		45 c0 0034 0000 0000 ff 11 64fb a9fe0101 a9fe0100
		c000 0ec8 0020 0000`), "") + hex.EncodeToString(wire))
	if err != nil {
		t.Fatal(err)
	}
	got := Encapsulate([]byte("before"), testAddresses, wire)
	if !bytes.HasPrefix(got, []byte("before")) {
		t.Fatalf("what was in dst is gone: %x", got)
	}
	got = got[len("before"):]
	if !bytes.Equal(got, want) || len(got) != FrameLen {
		t.Errorf("%d bytes\n%x, want\n%x", len(got), got, want)
	}
	if packet, ok := Decapsulate(want); !ok || !bytes.Equal(packet, wire) {
		t.Errorf("taken out: %x, %v, want %x", packet, ok, wire)
	}
}

// resum makes the IPv4 header's checksum right.
func resum(b []byte) []byte {
	ip := b[ethLen:]
	n := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[offIPCsum:], 0)
	binary.BigEndian.PutUint16(ip[offIPCsum:], ^frame.Sum(ip[:n], 0))
	return b
}

// udpSum gives the UDP datagram a checksum.
func udpSum(b []byte) []byte {
	ip, udp := b[ethLen:], b[ethLen+ipLen:]
	binary.BigEndian.PutUint16(udp[offUDPCsum:], 0)
	binary.BigEndian.PutUint16(udp[offUDPCsum:], ^frame.Sum(udp, frame.Pseudo(ip[offIPSrc:offIPSrc+8], protoUDP, len(udp))))
	return b
}

func TestDecapsulate(t *testing.T) {
	const ip, udp = ethLen, ethLen + ipLen
	for _, c := range []struct {
		name   string
		edit   func(b []byte) []byte
		ok     bool
		packet []byte
	}{
		{"as it is", func(b []byte) []byte { return b }, true, wire},
		{"padding behind", func(b []byte) []byte { return append(b, 0, 0, 0) }, true, wire},
		{"OVS 2.0: .0 to .1", func(b []byte) []byte { b[ip+15], b[ip+19] = 0, 1; return resum(b) }, true, wire},
		{"own MAC, own address", func(b []byte) []byte { b[0] = 2; return b }, true, wire},
		{"BFD MAC, other address", func(b []byte) []byte { b[ip+16] = 10; return resum(b) }, true, wire},
		{"another source port", func(b []byte) []byte { b[udp] = 0xd0; return b }, true, wire},
		{"UDP checksum", udpSum, true, wire},
		{"do not fragment", func(b []byte) []byte { b[ip+6] = 0x40; return resum(b) }, true, wire},
		{"IP options", func(b []byte) []byte {
			b = append(b[:udp:udp], append([]byte{1, 1, 1, 0}, b[udp:]...)...)
			b[ip], b[ip+3] = 0x46, b[ip+3]+4
			return resum(b)
		}, true, wire},

		{"TTL 254", func(b []byte) []byte { b[ip+8] = 254; return resum(b) }, true, nil},
		{"IP checksum wrong", func(b []byte) []byte { b[ip+10]++; return b }, true, nil},
		{"UDP checksum wrong", func(b []byte) []byte { b[udp+6]++; return b }, true, nil},
		{"corrupt under a checksum", func(b []byte) []byte { udpSum(b); b[len(b)-1]++; return b }, true, nil},
		{"IP length beyond", func(b []byte) []byte { b[ip+3]++; return resum(b) }, true, nil},
		{"UDP length beyond IP's", func(b []byte) []byte { b[udp+5]++; return append(b, 0) }, true, nil},
		{"UDP length below 8", func(b []byte) []byte { b[udp+5] = 7; return b }, true, nil},
		{"IP length below", func(b []byte) []byte { b[ip+3] = 3; return resum(b) }, true, nil},
		{"cut short", func(b []byte) []byte { return b[:len(b)-1] }, true, nil},

		{"containers' BFD", func(b []byte) []byte { b[0], b[ip+16] = 2, 10; return resum(b) }, false, nil},
		{"tagged", func(b []byte) []byte {
			return append(append(bytes.Clone(b[:12]), 0x81, 0, 0, 1), b[12:]...)
		}, false, nil},
		{"ARP", func(b []byte) []byte { b[13] = 6; return b }, false, nil},
		{"IPv6's version", func(b []byte) []byte { b[ip] = 0x65; return b }, false, nil},
		{"TCP", func(b []byte) []byte { b[ip+9] = 6; return resum(b) }, false, nil},
		{"multihop, port 4784", func(b []byte) []byte { b[udp+2], b[udp+3] = 0x12, 0xb0; return b }, false, nil},
		{"first fragment", func(b []byte) []byte { b[ip+6] = 0x20; return resum(b) }, false, nil},
		{"later fragment", func(b []byte) []byte { b[ip+7] = 1; return resum(b) }, false, nil},
		{"header of 16 bytes", func(b []byte) []byte { b[ip] = 0x44; return b }, false, nil},
		{"options beyond the end", func(b []byte) []byte { b[ip] = 0x4f; return b[:udp+8] }, false, nil},
		{"nothing", func(b []byte) []byte { return nil }, false, nil},
	} {
		b := c.edit(Encapsulate(nil, testAddresses, wire))
		packet, ok := Decapsulate(b)
		if ok != c.ok || !bytes.Equal(packet, c.packet) || (packet == nil) != (c.packet == nil) {
			t.Errorf("%s: %x, %v, want %x, %v", c.name, packet, ok, c.packet, c.ok)
		}
		if IsControl(b) != c.ok {
			t.Errorf("%s: IsControl is %v", c.name, !c.ok)
		}
	}
}

func TestNewAddresses(t *testing.T) {
	a, b := NewAddresses(), NewAddresses()
	for _, c := range []Addresses{a, b} {
		if c.DstMAC != peerMAC || c.SrcIP != ipHigh || c.DstIP != ipLow || c.SrcPort < firstSrcPort {
			t.Errorf("addresses %+v are not those of Open vSwitch", c)
		}
		if c.SrcMAC[0]&3 != 2 {
			t.Errorf("source MAC %x is not a locally administered station's", c.SrcMAC)
		}
	}
	if a.SrcMAC == b.SrcMAC || a.SrcPort == b.SrcPort {
		t.Errorf("two sessions share %+v and %+v", a, b)
	}
	for range srcPorts {
		if p := NewAddresses().SrcPort; p < firstSrcPort {
			t.Fatalf("source port %d", p)
		}
	}
}

func FuzzDecapsulate(f *testing.F) {
	f.Add(Encapsulate(nil, testAddresses, wire))
	f.Add(udpSum(Encapsulate(nil, testAddresses, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		packet, ok := Decapsulate(b)
		if !ok && packet != nil {
			t.Fatal("a packet from a frame that is none of ours")
		}
		if ok != IsControl(b) {
			t.Fatal("IsControl differs")
		}
		if len(packet) > 1<<16-1-ipLen-udpLen {
			t.Fatalf("a packet of %d bytes", len(packet))
		}
		if packet == nil {
			return
		}
		again, ok := Decapsulate(Encapsulate(nil, testAddresses, packet))
		if !ok || !bytes.Equal(again, packet) {
			t.Fatalf("%x became %x", packet, again)
		}
	})
}
