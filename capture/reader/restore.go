package reader

import (
	"encoding/binary"

	"vswitch/frame"
)

// Restore gives a TCP frame that is longer than an interface with an MTU of mtu bytes
// takes the offload state that it must have had: a capture shows super-frames whole,
// and their state is not in the file. It returns no state for any other frame, and
// leaves that as it is; of a super-frame it makes the checksum a partial one.
func Restore(data []byte, mtu int) (o frame.Offload, ok bool) {
	l3 := frame.EthLen
	if len(data) >= l3 && binary.BigEndian.Uint16(data[frame.AddrLen:]) == frame.TPID8021Q {
		l3 += frame.TagLen
	}
	if mtu <= 0 || len(data)-l3 <= mtu {
		return o, false
	}
	ip := data[l3:]
	var l4 int // from ip
	var addresses []byte
	switch binary.BigEndian.Uint16(data[l3-2:]) {
	case frame.EtherIPv4:
		if len(ip) < 20 || ip[0]>>4 != 4 || ip[9] != frame.ProtoTCP || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return o, false // no TCP, or a fragment
		}
		o.GSOType, l4, addresses = frame.GSOTCPv4, int(ip[0]&15)*4, ip[12:20]
	case frame.EtherIPv6:
		if len(ip) < 40 || ip[0]>>4 != 6 || ip[6] != frame.ProtoTCP || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			return o, false
		}
		o.GSOType, l4, addresses = frame.GSOTCPv6, 40, ip[8:40]
	default:
		return o, false
	}
	if l4 < 20 || len(ip) < l4+20 {
		return frame.Offload{}, false
	}
	headers := l4 + int(ip[l4+12]>>4)*4
	if headers < l4+20 || headers >= mtu || headers >= len(ip) {
		return frame.Offload{}, false
	}
	o.Flags, o.GSOSize, o.HdrLen = frame.NeedsCsum, uint16(mtu-headers), uint16(l3+headers)
	o.CsumStart, o.CsumOffset = uint16(l3+l4), tcpSum
	binary.BigEndian.PutUint16(ip[l4+tcpSum:], frame.Sum(nil, frame.Pseudo(addresses, frame.ProtoTCP, len(ip)-l4)))
	return o, true
}

// tcpSum is where the checksum stands in a TCP header.
const tcpSum = 16
