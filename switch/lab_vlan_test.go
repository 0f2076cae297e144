package vswitch_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"vswitch/internal/lab"
)

// TestLabVLANBytes sends tagged frames both ways through trunks, and wants every
// byte at the other end:
//
//	c1 eth0 MTU 1508 ── veth-c1 ┐
//	c2 eth0 MTU 1508 ── veth-c2 ┼ br0    veth-c1, veth-c2: trunks
//	c3 eth0          ── veth-c3 ┘        veth-c3: tag=10, with MTU 1508 too
//
// The MTU has room for two tags and 1500 bytes: a packet socket takes one 802.1Q
// tag beyond the MTU (packet_extra_vlan_len_allowed), and no more.
func TestLabVLANBytes(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{containers: []lab.ContainerOption{lab.MTU(1508)}})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	n.d.Ctl("set-port", c3.Veth, "tag=10")
	w1, w2, w3 := c1.Conn(), c2.Conn(), c3.Conn()
	for _, known := range []bool{false, true} {
		for _, size := range []int{46, 1000, 1500} {
			for _, test := range []struct {
				name string
				tags []uint32
				vid  int
			}{
				{"untagged", nil, 0},
				{"802.1Q", []uint32{0x8100_0014}, 20},
				{"802.1Q with priority and DEI", []uint32{0x8100_f014}, 20},
				{"802.1ad", []uint32{0x88a8_0014}, 20},
				{"802.1ad with priority", []uint32{0x88a8_e014}, 20},
				{"QinQ", []uint32{0x88a8_0014, 0x8100_000a}, 20},
				{"QinQ of 0x8100", []uint32{0x8100_0014, 0x8100_400a}, 20},
				{"QinQ of 0x88a8", []uint32{0x88a8_0014, 0x88a8_000a}, 20},
				{"highest VLAN", []uint32{0x8100_0fff}, 4095},
			} {
				t.Run(fmt.Sprintf("%s, %d bytes, known %v", test.name, size, known), func(t *testing.T) {
					dst1, dst2 := c1.MAC, c2.MAC
					if !known {
						dst1, dst2 = labMAC(101), labMAC(102)
					}
					payload := strings.Repeat("vlan", size)[:size]
					there := labTagged(labEther(dst2, c1.MAC, payload), test.tags...)
					back := labTagged(labEther(dst1, c2.MAC, payload), test.tags...)
					labSend(t, w1, there)
					labWant(t, w2, there)
					labSend(t, w2, back)
					labWant(t, w1, back)
				})
			}
		}
	}

	// Between a trunk and an access port the tag goes and comes, and nothing else
	// changes; the priority goes with the tag.
	payload := strings.Repeat("access", 250)
	plain := labEther(c3.MAC, c1.MAC, payload)
	labSend(t, w1, labTagged(plain, 0x8100_a00a))
	labWant(t, w3, plain)
	reply := labEther(c1.MAC, c3.MAC, payload)
	labSend(t, w3, reply)
	labWant(t, w1, labTagged(reply, 0x8100_000a))
	// The inner tag is payload.
	labSend(t, w1, labTagged(plain, 0x8100_000a, 0x8100_0014))
	labWant(t, w3, labTagged(plain, 0x8100_0014))

	// Not in its VLAN, nothing; and an access port takes no tag.
	fence := labTagged(labEther(labBroadcast, c1.MAC, "fence"), 0x8100_000a)
	labSend(t, w1, labTagged(labEther(labBroadcast, c1.MAC, "VLAN 11"), 0x8100_000b))
	labSend(t, w1, labEther(labBroadcast, c1.MAC, "untagged"))
	labSend(t, w1, fence)
	labWant(t, w3, labEther(labBroadcast, c1.MAC, "fence"))
	n.wantDrop(c3.Veth, "vlan-tagged-on-access", 1, func() {
		labSend(t, w3, labTagged(labEther(labBroadcast, c3.MAC, "tagged"), 0x8100_000a))
	})
	n.d.Ctl("set-port", c2.Veth, "trunks=10,30-40")
	n.wantDrop(c2.Veth, "vlan-not-trunked", 1, func() {
		labSend(t, w2, labTagged(labEther(labBroadcast, c2.MAC, "VLAN 20"), 0x8100_0014))
	})
}

// TestLabVLANSuperframes sends super-frames with tags, whose offsets move with
// them:
//
//	c1 eth0 ── veth-c1 (trunk) ┐
//	c2 eth0 ── veth-c2 (trunk) ┼ br0
//	c3 eth0 ── veth-c3 tag=10  ┘
func TestLabVLANSuperframes(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	n.d.Ctl("set-port", c3.Veth, "tag=10")
	w1, w2, w3 := c1.VnetConn("eth0"), c2.VnetConn("eth0"), c3.VnetConn("eth0")
	flow := labFlow{src: c1.MAC, dst: labBroadcast, srcIP: []byte{10, 0, 0, 1}, dstIP: []byte{10, 0, 0, 2}}
	super := flow.partial(t, []byte(strings.Repeat("superframe", 3000)), 1400)
	// tagged puts a tag into a frame with virtio-net header: what points behind it moves.
	tagged := func(frame []byte, tag uint32) []byte {
		f := append([]byte{}, frame[:10]...)
		for _, at := range []int{2, 6} { // hdr_len, csum_start
			binary.LittleEndian.PutUint16(f[at:], binary.LittleEndian.Uint16(f[at:])+4)
		}
		return append(f, labTagged(frame[10:], tag)...)
	}
	for _, tag := range []uint32{0x8100_000a, 0x88a8_600a} {
		labSend(t, w1, tagged(super, tag))
		// The lab's socket puts the tag back into the bytes, and leaves the header's
		// offsets as the kernel says them: without it.
		if h := labWantVnet(t, w2, labTagged(super[10:], tag)); h[1] != 1 || binary.LittleEndian.Uint16(h[4:]) != 1400 {
			t.Errorf("to a trunk, tag %#x: header %x, want a super-frame as %x", tag, h, super[:10])
		}
		if h := labWantVnet(t, w3, super[10:]); h[1] != 1 || binary.LittleEndian.Uint16(h[6:]) != 34 {
			t.Errorf("to an access port, tag %#x: header %x, want %x", tag, h, super[:10])
		}
	}
	labSend(t, w3, super)
	labWantVnet(t, w1, labTagged(super[10:], 0x8100_000a))
	labWantVnet(t, w2, labTagged(super[10:], 0x8100_000a))
}
