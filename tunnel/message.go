package tunnel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendControl is room for the control messages of one message: TOS, TTL and
// UDP_SEGMENT, 24 bytes each.
const sendControl = 3 * 24

// putControl writes the control messages of a message to c, and returns how many
// bytes they are: the outer DS field and TTL, which sockets shared by many ports
// cannot have themselves, and the segment size; 0 means what the socket has.
func putControl(c *[sendControl]byte, v6 bool, tos, hops uint8, segment int) int {
	level, typeTOS, typeTTL := int32(unix.SOL_IP), int32(unix.IP_TOS), int32(unix.IP_TTL)
	if v6 {
		level, typeTOS, typeTTL = unix.SOL_IPV6, unix.IPV6_TCLASS, unix.IPV6_HOPLIMIT
	}
	n := 0
	if tos != 0 {
		n += putInt(c[n:], level, typeTOS, int32(tos))
	}
	if hops != 0 {
		n += putInt(c[n:], level, typeTTL, int32(hops))
	}
	if segment != 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[n]))
		*h = unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_SEGMENT}
		h.SetLen(unix.SizeofCmsghdr + 2)
		*(*uint16)(unsafe.Pointer(&c[n+unix.SizeofCmsghdr])) = uint16(segment)
		n += 24
	}
	return n
}

// putInt writes one control message that is an int, in 24 bytes.
func putInt(c []byte, level, typ, value int32) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	*h = unix.Cmsghdr{Level: level, Type: typ}
	h.SetLen(unix.SizeofCmsghdr + 4)
	*(*int32)(unsafe.Pointer(&c[unix.SizeofCmsghdr])) = value
	return 24
}
