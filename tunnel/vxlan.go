package tunnel

import "encoding/binary"

// Offsets in a VXLAN header, RFC 7348 section 5:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|G|R|R|R|I|R|R|R|R|D|R|R|A|R|R|R|      Group Policy ID *        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                VXLAN Network Identifier (VNI) |   Reserved    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// * and G, D, A are of draft-smith-vxlan-group-policy, reserved in the RFC, which
// has a receiver ignore what is reserved.
const (
	vxlanLen   = 8
	vxlanFlags = 0
	vxlanVNI   = 4

	vxlanHasVNI = 0x08 // I
)

// decodeVXLAN is described at Kind.decode. The I flag must be set.
func decodeVXLAN(b []byte) (h header, ok bool) {
	if len(b) < vxlanLen || b[vxlanFlags]&vxlanHasVNI == 0 {
		return h, false
	}
	return header{key: binary.BigEndian.Uint32(b[vxlanVNI:]) >> 8, len: vxlanLen}, true
}

// putVXLAN writes the header to b; len(b) >= vxlanLen.
func putVXLAN(b []byte, vni uint32) {
	binary.BigEndian.PutUint32(b[vxlanFlags:], vxlanHasVNI<<24)
	binary.BigEndian.PutUint32(b[vxlanVNI:], vni<<8)
}
