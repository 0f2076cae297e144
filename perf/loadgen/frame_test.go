package loadgen

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A decoder that knows nothing of this package finds valid headers, with the
// addresses and checksums that they should have.
func TestFramesAreValid(t *testing.T) {
	for _, test := range []struct {
		name             string
		stream           Stream
		dst, src         string
		ipSrc, ipDst     string
		portSrc, portDst layers.UDPPort
	}{
		{"first", Stream{Sizes: []int{60}, Flows: 1},
			"02:0b:00:00:00:00", "02:0a:00:00:00:00", "198.18.0.0", "198.19.0.0", 49152, 9},
		{"high flow", Stream{Sizes: []int{1514}, Flows: 1, First: 0x12fedc},
			"02:0b:00:12:fe:dc", "02:0a:00:12:fe:dc", "198.18.254.220", "198.19.254.220", 49152 + 0x12, 9},
		{"reverse", Stream{Sizes: []int{508}, Flows: 1, First: 258, Reverse: true},
			"02:0a:00:00:01:02", "02:0b:00:00:01:02", "198.19.1.2", "198.18.1.2", 9, 49152},
		{"unknown", Stream{Sizes: []int{61}, Flows: 1, To: Unknown},
			"02:0c:00:00:00:00", "02:0a:00:00:00:00", "198.18.0.0", "198.19.0.0", 49152, 9},
		{"broadcast", Stream{Sizes: []int{MaxLen}, Flows: 1, First: 0xffff, To: Broadcast},
			"ff:ff:ff:ff:ff:ff", "02:0a:00:00:ff:ff", "198.18.255.255", "198.19.255.255", 49152, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := newTrain()
			tr.stream(&test.stream)
			tr.load(1, 1234567890123)
			frame := bytesOf(&tr.msgs[0])
			if len(frame) != test.stream.Sizes[0] {
				t.Fatalf("%d bytes", len(frame))
			}
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			if e := p.ErrorLayer(); e != nil {
				t.Fatal(e.Error())
			}
			eth := p.LinkLayer().(*layers.Ethernet)
			if eth.DstMAC.String() != test.dst || eth.SrcMAC.String() != test.src {
				t.Errorf("from %v to %v", eth.SrcMAC, eth.DstMAC)
			}
			ip := p.NetworkLayer().(*layers.IPv4)
			if ip.SrcIP.String() != test.ipSrc || ip.DstIP.String() != test.ipDst || int(ip.Length) != len(frame)-14 {
				t.Errorf("IP from %v to %v, %d bytes", ip.SrcIP, ip.DstIP, ip.Length)
			}
			if sum := naiveSum(ip.Contents); sum != 0xffff {
				t.Errorf("IP header sums to %#x", sum)
			}
			udp := p.TransportLayer().(*layers.UDP)
			if udp.SrcPort != test.portSrc || udp.DstPort != test.portDst || int(udp.Length) != len(frame)-34 || udp.Checksum != 0 {
				t.Errorf("UDP %+v", udp)
			}
			flow, seq, stamp, v := parse(frame, len(frame))
			if int(flow) != test.stream.First || seq != 0 || stamp != 1234567890123 || v != stamped {
				t.Errorf("parsed flow %d, seq %d, stamp %d: %d", flow, seq, stamp, v)
			}
		})
	}
}

// naiveSum is the ones' complement sum of RFC 1071.
func naiveSum(b []byte) uint32 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

func TestParse(t *testing.T) {
	good := make([]byte, 100)
	var h header
	h.init()
	h.write(100, DstMAC(7), SrcMAC(7), false, 7, 8, 9)
	copy(good, h[:])
	with := func(at int, b byte) []byte {
		frame := slices.Clone(good)
		frame[at] ^= b
		return frame
	}
	announcing := slices.Clone(good)
	binary.BigEndian.PutUint32(announcing[offFlow:], announcement)
	for _, test := range []struct {
		name  string
		frame []byte
		wire  int
		want  verdict
	}{
		{"whole", good, 100, stamped},
		{"snapped", good[:MinLen], 100, stamped},
		{"cut in the stamp", good[:MinLen-1], 100, foreign},
		{"empty", nil, 0, foreign},
		{"ARP", with(offEtherType+1, 0x06), 100, foreign},
		{"IP options", with(offIP, 0x03), 100, foreign},
		{"TCP", with(offIP+9, protoUDP^6), 100, foreign},
		{"other magic", with(offMagic, 1), 100, foreign},
		{"cut on the way", good[:90], 90, damaged},
		{"padded on the way", good, 104, damaged},
		{"IP length", with(offIPLen+1, 1), 100, damaged},
		{"UDP length", with(offUDPLen+1, 1), 100, damaged},
		{"announcement", announcing, 100, announced},
	} {
		t.Run(test.name, func(t *testing.T) {
			flow, seq, stamp, v := parse(test.frame, test.wire)
			if v != test.want {
				t.Errorf("verdict %d, want %d", v, test.want)
			}
			if v == stamped && (flow != 7 || seq != 8 || stamp != 9) {
				t.Errorf("flow %d, seq %d, stamp %d", flow, seq, stamp)
			}
		})
	}
}

// What parse takes for a stamp, write writes.
func FuzzParse(f *testing.F) {
	var h header
	h.init()
	h.write(MinLen, DstMAC(1), SrcMAC(1), false, 1, 2, 3)
	f.Add(h[:], MinLen)
	f.Add(h[:59], 59)
	f.Add(h[:], 1514)
	f.Fuzz(func(t *testing.T, frame []byte, wire int) {
		flow, seq, stamp, v := parse(frame, wire)
		if v == foreign || v == damaged {
			if flow != 0 || seq != 0 || stamp != 0 {
				t.Error("a stamp of a frame that has none")
			}
			return
		}
		if wire < MinLen || wire > 65535+offIP {
			t.Fatalf("a stamp in %d bytes", wire)
		}
		var again header
		again.init()
		again.write(wire, MAC{}, MAC{}, false, flow, seq, stamp)
		if f2, s2, st2, v2 := parse(again[:], wire); f2 != flow || s2 != seq || st2 != stamp || v2 != v {
			t.Errorf("%d %d %d %d became %d %d %d %d", flow, seq, stamp, v, f2, s2, st2, v2)
		}
	})
}
