package tunnel

import (
	"encoding/binary"

	"vswitch/frame"
)

// Offsets in a Geneve header, RFC 8926 section 3.4, and in an option, section 3.5:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Virtual Network Identifier (VNI)       |    Reserved   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Option Class         |C    Type      |R|R|R| Length  |  first option
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                  Option data, Length times 4 bytes            |
//
// Opt Len counts units of 4 bytes, all options together.
const (
	geneveLen   = 8
	geneveFlags = 1
	geneveProto = 2
	geneveVNI   = 4

	geneveVersion  = 0xc0 // of the first byte
	geneveOptLen   = 0x3f
	geneveCritical = 0x40 // C: an option is critical

	geneveOptionLen    = 4 // an option's own header
	geneveOptionType   = 2
	geneveOptionLength = 3

	geneveOptionCritical = 0x80 // of the type
	geneveOptionUnits    = 0x1f
)

// decodeGeneve is described at Kind.decode. This switch knows no option, so all
// are skipped, and a critical one is a fault: section 3.5 has who does not know it
// drop the packet. Control packets (O) are taken as others.
func decodeGeneve(b []byte) (h header, ok bool) {
	if len(b) < geneveLen || b[0]&geneveVersion != 0 {
		return h, false
	}
	h.key = binary.BigEndian.Uint32(b[geneveVNI:]) >> 8
	h.len = geneveLen + int(b[0]&geneveOptLen)*4
	if h.len > len(b) {
		return header{}, false
	}
	if binary.BigEndian.Uint16(b[geneveProto:]) != etherTEB {
		h.fault = frame.FaultProtocol
	}
	if b[geneveFlags]&geneveCritical != 0 {
		h.fault = frame.FaultCritical
	}
	for at := geneveLen; at < h.len; h.options++ {
		o := b[at:h.len] // at least geneveOptionLen: both ends are multiples of 4
		if o[geneveOptionType]&geneveOptionCritical != 0 {
			h.fault = frame.FaultCritical
		}
		at += geneveOptionLen + int(o[geneveOptionLength]&geneveOptionUnits)*4
		if at > h.len {
			return header{}, false
		}
	}
	return h, true
}

// putGeneve writes the header without options to b; len(b) >= geneveLen.
func putGeneve(b []byte, vni uint32) {
	binary.BigEndian.PutUint32(b, etherTEB)
	binary.BigEndian.PutUint32(b[geneveVNI:], vni<<8)
}
