package probe

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vswitch/frame"
)

// Kind says what a probe is for.
type Kind uint8

// The kinds.
const (
	// Path goes the way of a frame from switch to switch. Each that hears it sends
	// it on as it would the frame, and answers with a Report.
	Path Kind = iota + 1
	// Report tells what a switch did with a Path: its payload is a Hop.
	Report
	// Echo is as long as a tunnel is said to carry. Who hears it answers with an
	// EchoReply.
	Echo
	// EchoReply says in its payload, 4 bytes, how long the Echo was that arrived.
	EchoReply

	numKinds
)

func (k Kind) String() string {
	if k == 0 || k >= numKinds {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return [numKinds]string{Path: "path", Report: "report", Echo: "echo", EchoReply: "echo-reply"}[k]
}

// Offsets in a probe, from the frame's first byte, and sizes in bytes.
const (
	etherTypeAt = frame.AddrLen
	magicAt     = frame.EthLen
	kindAt      = magicAt + len(frame.ProbeMagic)
	hopAt       = kindAt + 1
	ttlAt       = hopAt + 1
	reservedAt  = ttlAt + 1
	idAt        = reservedAt + 1
	spanAt      = idAt + 8
	sentAt      = spanAt + 4
	lengthAt    = sentAt + 8
	payloadAt   = lengthAt + 2

	// HeaderLen is what a probe has before its payload.
	HeaderLen = payloadAt
	// MinLen is the shortest frame on Ethernet, without its checksum; a shorter
	// probe is padded.
	MinLen = 60
	// MaxPayload is the largest payload.
	MaxPayload = 1024

	echoReplyLen = 4
)

// MaxTTL is how many switches a Path goes through at most.
const MaxTTL = 16

// ID names a measurement.
type ID [8]byte

// Probe is one probe.
type Probe struct {
	Dst, Src [6]byte
	Kind     Kind
	Hop      uint8 // switches before this one: 1 for the first that hears it
	TTL      uint8 // as far as it goes, at most MaxTTL
	ID       ID
	Span     uint32
	Sent     int64  // nanoseconds on the clock of who made the first of this ID
	Payload  []byte // of a Report and of an EchoReply
	Len      int    // of the whole frame in bytes, without a tag; Append takes it, too
}

// What Decode finds. They are allocated once: a hostile sender may cause many.
var (
	ErrShort   = errors.New("probe is shorter than its header")
	ErrMagic   = errors.New("not a probe, or of another version")
	ErrKind    = errors.New("probe has an unknown kind, or bits that are reserved")
	ErrTTL     = errors.New("probe has an impossible TTL or hop")
	ErrPayload = errors.New("probe's payload is too long, or does not fit its kind")
)

// check tells what is wrong with a probe's fields.
func (p *Probe) check() error {
	switch {
	case p.Kind == 0 || p.Kind >= numKinds:
		return ErrKind
	case p.TTL == 0 || p.TTL > MaxTTL || p.Hop == 0 || p.Hop > p.TTL:
		return ErrTTL
	}
	n := len(p.Payload)
	switch p.Kind {
	case Report:
		if n == 0 || n > MaxPayload {
			return ErrPayload
		}
	case EchoReply:
		if n != echoReplyLen {
			return ErrPayload
		}
	default:
		if n != 0 {
			return ErrPayload
		}
	}
	return nil
}

// Append appends the probe to b, padded with zeros to Len bytes, and to MinLen at
// least.
func (p *Probe) Append(b []byte) ([]byte, error) {
	if err := p.check(); err != nil {
		return b, fmt.Errorf("write %v probe: %w", p.Kind, err)
	}
	size := max(p.Len, MinLen, HeaderLen+len(p.Payload))
	if size > frame.MaxLen {
		return b, fmt.Errorf("write %v probe of %d bytes: %w", p.Kind, size, frame.ErrLong)
	}
	n := len(b)
	b = append(b, make([]byte, size)...)
	h := b[n:]
	copy(h, p.Dst[:])
	copy(h[6:], p.Src[:])
	binary.BigEndian.PutUint16(h[etherTypeAt:], frame.EtherProbe)
	copy(h[magicAt:], frame.ProbeMagic)
	h[kindAt], h[hopAt], h[ttlAt] = byte(p.Kind), p.Hop, p.TTL
	copy(h[idAt:], p.ID[:])
	binary.BigEndian.PutUint32(h[spanAt:], p.Span)
	binary.BigEndian.PutUint64(h[sentAt:], uint64(p.Sent))
	binary.BigEndian.PutUint16(h[lengthAt:], uint16(len(p.Payload)))
	copy(h[payloadAt:], p.Payload)
	return b, nil
}

// Decode reads a frame without its tag. The probe's payload is a part of b.
func Decode(b []byte) (Probe, error) {
	var p Probe
	if len(b) < HeaderLen {
		return p, ErrShort
	}
	if binary.BigEndian.Uint16(b[etherTypeAt:]) != frame.EtherProbe || string(b[magicAt:kindAt]) != frame.ProbeMagic {
		return p, ErrMagic
	}
	if b[reservedAt] != 0 {
		return p, ErrKind
	}
	n := int(binary.BigEndian.Uint16(b[lengthAt:]))
	if n > MaxPayload || n > len(b)-payloadAt {
		return p, ErrPayload
	}
	copy(p.Dst[:], b)
	copy(p.Src[:], b[6:])
	p.Kind, p.Hop, p.TTL = Kind(b[kindAt]), b[hopAt], b[ttlAt]
	copy(p.ID[:], b[idAt:])
	p.Span = binary.BigEndian.Uint32(b[spanAt:])
	p.Sent = int64(binary.BigEndian.Uint64(b[sentAt:]))
	p.Len = len(b)
	if n > 0 {
		p.Payload = b[payloadAt : payloadAt+n : payloadAt+n]
	}
	if err := p.check(); err != nil {
		return Probe{}, err
	}
	return p, nil
}

// EchoLen makes the payload of an EchoReply: how many bytes the Echo had, its tag
// included.
func EchoLen(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// ReadEchoLen reads it; p must be an EchoReply that Decode took.
func ReadEchoLen(p *Probe) int { return int(binary.BigEndian.Uint32(p.Payload)) }
