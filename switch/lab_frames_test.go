package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/internal/lab"
)

// labTestType is the EtherType of frames that nobody answers (IEEE 802, local
// experiments).
const labTestType = 0x88b5

// labBroadcast is everybody's address.
var labBroadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// labMAC is a unicast address of nobody, a different one for each i.
func labMAC(i int) net.HardwareAddr {
	return net.HardwareAddr{2, 0, 0xaa, byte(i >> 16), byte(i >> 8), byte(i)}
}

// labEther makes an untagged frame of labTestType, at least 60 bytes long.
func labEther(dst, src net.HardwareAddr, payload string) []byte {
	f := append(append([]byte{}, dst...), src...)
	f = binary.BigEndian.AppendUint16(f, labTestType)
	f = append(f, payload...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

// labTagged puts tags, the outermost first, into a frame: 0x8100_000a is VLAN 10.
func labTagged(frame []byte, tags ...uint32) []byte {
	f := append([]byte{}, frame[:12]...)
	for _, tag := range tags {
		f = binary.BigEndian.AppendUint32(f, tag)
	}
	return append(f, frame[12:]...)
}

// labFlow is one TCP or UDP flow to make frames of.
type labFlow struct {
	src, dst     net.HardwareAddr
	srcIP, dstIP net.IP
	udp          bool
}

// frame makes a finished frame of the flow with 20-byte (UDP: 8-byte) transport
// header.
func (f labFlow) frame(t *testing.T, payload []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: f.src, DstMAC: f.dst, EthernetType: layers.EthernetTypeIPv4}
	protocol := layers.IPProtocolTCP
	if f.udp {
		protocol = layers.IPProtocolUDP
	}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if f.srcIP.To4() != nil {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: f.srcIP.To4(), DstIP: f.dstIP.To4(), Id: 1, Flags: layers.IPv4DontFragment}
		ip, network = v4, v4
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: f.srcIP, DstIP: f.dstIP}
		ip, network = v6, v6
	}
	var transport gopacket.SerializableLayer
	if f.udp {
		u := &layers.UDP{SrcPort: 7000, DstPort: 7001}
		u.SetNetworkLayerForChecksum(network)
		transport = u
	} else {
		tcp := &layers.TCP{SrcPort: 7000, DstPort: 7001, Seq: 1000, Ack: 1, ACK: true, PSH: true, Window: 1000}
		tcp.SetNetworkLayerForChecksum(network)
		transport = tcp
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		eth, ip, transport, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// partial makes what a kernel hands over before it finished the frame: a
// virtio-net header, the transport checksum being the pseudo-header's sum only;
// gsoSize above zero makes it a super-frame.
func (f labFlow) partial(t *testing.T, payload []byte, gsoSize int) []byte {
	t.Helper()
	frame := f.frame(t, payload)
	start, offset, header, protocol, gso := 14+20, 16, 20, uint32(6), byte(1) // VIRTIO_NET_HDR_GSO_TCPV4
	addresses := frame[14+12 : 14+20]
	if f.srcIP.To4() == nil {
		start, gso = 14+40, 4 // VIRTIO_NET_HDR_GSO_TCPV6
		addresses = frame[14+8 : 14+40]
	}
	if f.udp {
		offset, header, protocol, gso = 6, 8, 17, 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	}
	sum := labSum(addresses, protocol+uint32(len(frame)-start))
	binary.BigEndian.PutUint16(frame[start+offset:], sum)
	if gsoSize == 0 {
		gso = 0
	}
	return append(labVnet(1, gso, start+header, gsoSize, start, offset), frame...)
}

// labVnet is a struct virtio_net_hdr (linux/virtio_net.h), little-endian.
func labVnet(flags, gso byte, headerLen, gsoSize, csumStart, csumOffset int) []byte {
	h := []byte{flags, gso}
	for _, v := range []int{headerLen, gsoSize, csumStart, csumOffset} {
		h = binary.LittleEndian.AppendUint16(h, uint16(v))
	}
	return h
}

// labSum is the ones' complement sum of RFC 1071, the plain way: the oracle.
func labSum(b []byte, sum uint32) uint16 {
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// labFinished is an error unless the frame is TCP or UDP, at most mtu bytes long
// behind its Ethernet header, with right lengths and checksums.
func labFinished(frame []byte, mtu int) error {
	if len(frame) > mtu+14 {
		return fmt.Errorf("frame of %d bytes, MTU %d", len(frame), mtu)
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if failed := p.ErrorLayer(); failed != nil {
		return fmt.Errorf("decode %x: %w", frame, failed.Error())
	}
	var addresses []byte
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if labSum(ip.Contents, 0) != 0xffff {
			return fmt.Errorf("wrong IPv4 checksum in %x", ip.Contents)
		}
		addresses = ip.Contents[12:20]
	case *layers.IPv6:
		addresses = ip.Contents[8:40]
	default:
		return fmt.Errorf("no IP in %x", frame)
	}
	segment := p.NetworkLayer().LayerPayload()
	protocol := uint32(layers.IPProtocolTCP)
	if _, ok := p.TransportLayer().(*layers.UDP); ok {
		protocol = uint32(layers.IPProtocolUDP)
	} else if p.Layer(layers.LayerTypeTCP) == nil {
		return errLabNoTransport
	}
	pseudo := uint32(labSum(addresses, protocol+uint32(len(segment))))
	if sum := labSum(segment, pseudo); sum != 0xffff {
		return fmt.Errorf("wrong transport checksum (sum %#04x) in a frame of %d bytes", sum, len(frame))
	}
	return nil
}

var errLabNoTransport = errors.New("no TCP and no UDP")

// labSend sends frames, and fails the test when it cannot.
func labSend(t *testing.T, c *lab.Conn, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if err := c.Send(f); err != nil {
			t.Fatal(err)
		}
	}
}

// labWant wants the next frames of labTestType to be these; what else the
// interface hears is left out.
func labWant(t *testing.T, c *lab.Conn, frames ...[]byte) {
	t.Helper()
	for i, want := range frames {
		if got := labNext(t, c, 5*time.Second); !bytes.Equal(got, want) {
			t.Fatalf("frame %d:\ngot  %x\nwant %x", i, labShort(got), labShort(want))
		}
	}
}

func labShort(b []byte) []byte { return b[:min(len(b), 96)] }

// labWantNone sends fence by from and wants it to be the next frame at c: frames
// that one sender sends keep their order, so nothing else came before it.
func labWantNone(t *testing.T, from, c *lab.Conn, fence []byte) {
	t.Helper()
	labSend(t, from, fence)
	labWant(t, c, fence)
}

// labNext returns the next frame of labTestType, tagged or not; nil when none
// comes in time.
func labNext(t *testing.T, c *lab.Conn, limit time.Duration) []byte {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		frame, err := c.Recv(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if labIsTest(frame) {
			return frame
		}
	}
}

// labIsTest reports whether a frame is of labTestType behind its tags.
func labIsTest(frame []byte) bool {
	for at := 12; at+2 <= len(frame); at += 4 {
		switch binary.BigEndian.Uint16(frame[at:]) {
		case labTestType:
			return true
		case 0x8100, 0x88a8:
		default:
			return false
		}
	}
	return false
}
