package vswitch

import (
	"encoding/binary"
	"sync/atomic"

	"vswitch/frame"
)

// byteRing carries copies of frames from one worker to one reader. It is bounded
// in bytes; what does not fit is not written, and the writer never waits.
//
// Thread-safety: one writer and one reader at a time. The writer owns the bytes
// from tail on, the reader those before it; each end publishes its index with an
// atomic store after it is done with the bytes.
type byteRing struct {
	buf        []byte // a power of two long
	head, tail atomic.Uint64
}

// captureRingLen is the length in bytes of a capture file's ring, one a worker:
// sixty-four super-frames, or some 50,000 small frames.
const captureRingLen = 4 << 20

func newByteRing(n int) *byteRing { return &byteRing{buf: make([]byte, n)} }

// record is what stands in a ring before a frame's bytes: a sighting, in numbers.
type record struct {
	at      int64  // nanoseconds on the switch's clock
	port    uint32 // by which it came in or leaves
	output  uint32 // the first port it was put out by
	vid     uint16
	outputs uint16 // how many that were
	reason  Reason
	out     bool // it leaves
	own     bool // the switch made it
	skipped uint32
	tag     frame.Tag
	offload frame.Offload
	wireLen int // of the whole frame, tag included
	n       int // bytes of it that follow, without the tag
}

// recordLen is what a record takes in a ring; see put.
const recordLen = 40 + frame.VnetLen

func (r *record) put(b *[recordLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(r.at))
	le.PutUint32(b[8:], r.port)
	le.PutUint32(b[12:], r.output)
	le.PutUint16(b[16:], r.vid)
	le.PutUint16(b[18:], r.outputs)
	b[20] = byte(r.reason)
	b[21] = 0
	if r.out {
		b[21] |= 1
	}
	if r.own {
		b[21] |= 2
	}
	le.PutUint32(b[24:], r.skipped)
	le.PutUint16(b[28:], r.tag.TPID)
	le.PutUint16(b[30:], r.tag.TCI)
	le.PutUint32(b[32:], uint32(r.wireLen))
	le.PutUint32(b[36:], uint32(r.n))
	r.offload.PutVnet(b[40:], 0)
}

func (r *record) get(b *[recordLen]byte) {
	le := binary.LittleEndian
	r.at = int64(le.Uint64(b[0:]))
	r.port, r.output = le.Uint32(b[8:]), le.Uint32(b[12:])
	r.vid, r.outputs = le.Uint16(b[16:]), le.Uint16(b[18:])
	r.reason = Reason(b[20])
	r.out, r.own = b[21]&1 != 0, b[21]&2 != 0
	r.skipped = le.Uint32(b[24:])
	r.tag = frame.Tag{TPID: le.Uint16(b[28:]), TCI: le.Uint16(b[30:])}
	r.wireLen, r.n = int(le.Uint32(b[32:])), int(le.Uint32(b[36:]))
	r.offload.GetVnet(b[40:])
}

// write appends a record and its first r.n bytes of data, or reports that there
// is no room.
func (r *byteRing) write(rec *record, data []byte) bool {
	head := r.head.Load()
	tail := r.tail.Load()
	if uint64(len(r.buf))-(head-tail) < uint64(recordLen+rec.n) {
		return false
	}
	var h [recordLen]byte
	rec.put(&h)
	r.copyIn(head, h[:])
	r.copyIn(head+recordLen, data[:rec.n])
	r.head.Store(head + uint64(recordLen+rec.n))
	return true
}

// peek returns the time of the oldest record.
func (r *byteRing) peek() (at int64, ok bool) {
	tail := r.tail.Load()
	if r.head.Load() == tail {
		return 0, false
	}
	var h [8]byte
	r.copyOut(h[:], tail)
	return int64(binary.LittleEndian.Uint64(h[:])), true
}

// read takes the oldest record, its bytes into data, which has room for MaxLen.
func (r *byteRing) read(rec *record, data []byte) bool {
	tail := r.tail.Load()
	if r.head.Load() == tail {
		return false
	}
	var h [recordLen]byte
	r.copyOut(h[:], tail)
	rec.get(&h)
	r.copyOut(data[:rec.n], tail+recordLen)
	r.tail.Store(tail + uint64(recordLen+rec.n))
	return true
}

func (r *byteRing) copyIn(at uint64, b []byte) {
	i := int(at & uint64(len(r.buf)-1))
	n := copy(r.buf[i:], b)
	copy(r.buf, b[n:])
}

func (r *byteRing) copyOut(b []byte, at uint64) {
	i := int(at & uint64(len(r.buf)-1))
	n := copy(b, r.buf[i:])
	copy(b[n:], r.buf)
}
