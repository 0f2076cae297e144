package frame

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	protoSCTP = 132
	// sctpChecksum is the checksum's offset in the common header, RFC 9260
	// section 3.1. No other protocol's checksum that Linux leaves open is there.
	sctpChecksum = 8
)

// castagnoli is CRC32c's polynomial, RFC 9260 appendix A. It never changes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NeedsCRC32c reports whether the checksum that f leaves open is SCTP's, which is
// a CRC and no Internet checksum. A veth leaves it open (NETIF_F_SCTP_CRC), but a
// virtio-net header cannot say so on the way out: Linux keeps csum_not_inet apart,
// and writes an Internet checksum for an interface that does not sum by itself. So
// FinishChecksum is for every output of such a frame, whatever its offloads. Call
// it only after Check returned nil.
func (f *Frame) NeedsCRC32c() bool {
	if f.Flags&NeedsCsum == 0 || f.CsumOffset != sctpChecksum || f.Super() {
		return false
	}
	_, ok := sctpEnd(f.Bytes(), &f.Offload)
	return ok
}

// sctpEnd returns where the SCTP packet ends that o points to, if it is one.
func sctpEnd(b []byte, o *Offload) (end int, ok bool) {
	if o.CsumOffset != sctpChecksum || o.Super() {
		return 0, false
	}
	l, err := Parse(b)
	if err != nil || l.Proto != protoSCTP || l.Fragment || l.L4 != int(o.CsumStart) || l.L4+sctpChecksum+4 > l.End {
		return 0, false
	}
	return l.End, true
}

// finishSCTP writes the checksum of the SCTP packet p: RFC 9260 section 6.8. The
// CRC's bits go out lowest first, which makes the field little-endian.
func finishSCTP(p []byte) {
	field := p[sctpChecksum:]
	binary.LittleEndian.PutUint32(field, 0)
	binary.LittleEndian.PutUint32(field, crc32.Checksum(p, castagnoli))
}
