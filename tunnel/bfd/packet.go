package bfd

import (
	"encoding/binary"
	"errors"
	"time"
)

// State is what one end thinks of the session (RFC 5880 section 4.1, Sta).
type State uint8

const (
	AdminDown State = iota // turned off by whoever runs it
	Down                   // nothing heard, or the other end hears nothing
	Init                   // the other end is heard, but does not say that it hears
	Up                     // both hear
)

// String returns the word that ovs-appctl bfd/show has for the state.
func (s State) String() string {
	switch s {
	case AdminDown:
		return "admin_down"
	case Down:
		return "down"
	case Init:
		return "init"
	case Up:
		return "up"
	}
	return "invalid"
}

// Diag is the reason for the last change of a state to the worse (RFC 5880
// section 4.1). It stays when the session is up again.
type Diag uint8

const (
	DiagNone                Diag = iota
	DiagExpired                  // nothing came for the detection time
	DiagEchoFailed               // never ours: no echo
	DiagNeighborDown             // the other end says that it is down
	DiagForwardingReset          // never ours
	DiagPathDown                 // never ours
	DiagConcatenated             // never ours
	DiagAdminDown                // the session was closed
	DiagReverseConcatenated      // never ours
)

// maxDiag is the largest value the field can have.
const maxDiag = 31

// diagNames are the words of ovs-appctl bfd/show.
var diagNames = [...]string{
	DiagNone:                "No Diagnostic",
	DiagExpired:             "Control Detection Time Expired",
	DiagEchoFailed:          "Echo Function Failed",
	DiagNeighborDown:        "Neighbor Signaled Session Down",
	DiagForwardingReset:     "Forwarding Plane Reset",
	DiagPathDown:            "Path Down",
	DiagConcatenated:        "Concatenated Path Down",
	DiagAdminDown:           "Administratively Down",
	DiagReverseConcatenated: "Reverse Concatenated Path Down",
}

// String returns the words that ovs-appctl bfd/show has for the reason.
func (d Diag) String() string {
	if int(d) < len(diagNames) {
		return diagNames[d]
	}
	return "Invalid Diagnostic"
}

// A control packet, RFC 5880 section 4.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       My Discriminator                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Your Discriminator                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               Desired Min TX Interval, microseconds           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               Required Min RX Interval, microseconds          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             Required Min Echo RX Interval, microseconds       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	offVersDiag  = 0
	offFlags     = 1
	offMult      = 2
	offLength    = 3
	offMyDiscr   = 4
	offYourDiscr = 8
	offMinTx     = 12
	offMinRx     = 16
	offMinEchoRx = 20

	// PacketLen is the length of a control packet without authentication.
	PacketLen = 24
)

const (
	version      = 1
	versionShift = 5
	stateShift   = 6

	flagPoll       = 1 << 5
	flagFinal      = 1 << 4
	flagCtl        = 1 << 3 // C: Control Plane Independent
	flagAuth       = 1 << 2
	flagDemand     = 1 << 1
	flagMultipoint = 1 << 0
)

// Errors of Parse. They are made once: whoever can send to a tunnel can cause them.
var (
	ErrShort      = errors.New("bfd packet: shorter than 24 bytes")
	ErrVersion    = errors.New("bfd packet: version is not 1")
	ErrLength     = errors.New("bfd packet: length field is less than 24 or more than what came")
	ErrAuth       = errors.New("bfd packet: authenticated, and no authentication is in use")
	ErrMultiplier = errors.New("bfd packet: multiplier is 0")
	ErrMultipoint = errors.New("bfd packet: multipoint bit is set")
	ErrNoMyDiscr  = errors.New("bfd packet: my discriminator is 0")
)

// Packet is a control packet of version 1 without authentication. Intervals are
// whole microseconds, at most 1<<32 - 1 of them.
type Packet struct {
	Diag          Diag // 0 to 31
	State         State
	Poll          bool
	Final         bool
	ControlIndep  bool // C: it lives on when the sender's control plane does not
	Demand        bool
	Multiplier    uint8
	MyDiscr       uint32
	YourDiscr     uint32
	DesiredMinTx  time.Duration
	RequiredMinRx time.Duration
	MinEchoRx     time.Duration
}

// Parse decodes the control packet at the start of b, and refuses what a receiver
// must discard whatever its session is (RFC 5880 section 6.8.6).
func Parse(b []byte) (Packet, error) {
	if len(b) < PacketLen {
		return Packet{}, ErrShort
	}
	flags := b[offFlags]
	switch {
	case b[offVersDiag]>>versionShift != version:
		return Packet{}, ErrVersion
	case flags&flagAuth != 0:
		return Packet{}, ErrAuth
	case b[offLength] < PacketLen || int(b[offLength]) > len(b):
		return Packet{}, ErrLength
	case b[offMult] == 0:
		return Packet{}, ErrMultiplier
	case flags&flagMultipoint != 0:
		return Packet{}, ErrMultipoint
	}
	p := Packet{
		Diag:          Diag(b[offVersDiag] & maxDiag),
		State:         State(flags >> stateShift),
		Poll:          flags&flagPoll != 0,
		Final:         flags&flagFinal != 0,
		ControlIndep:  flags&flagCtl != 0,
		Demand:        flags&flagDemand != 0,
		Multiplier:    b[offMult],
		MyDiscr:       binary.BigEndian.Uint32(b[offMyDiscr:]),
		YourDiscr:     binary.BigEndian.Uint32(b[offYourDiscr:]),
		DesiredMinTx:  interval(b[offMinTx:]),
		RequiredMinRx: interval(b[offMinRx:]),
		MinEchoRx:     interval(b[offMinEchoRx:]),
	}
	if p.MyDiscr == 0 {
		return Packet{}, ErrNoMyDiscr
	}
	return p, nil
}

// Append appends p's bytes to dst.
func (p Packet) Append(dst []byte) []byte {
	flags := byte(p.State) << stateShift
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{p.Poll, flagPoll}, {p.Final, flagFinal}, {p.ControlIndep, flagCtl}, {p.Demand, flagDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	dst = append(dst, version<<versionShift|byte(p.Diag)&maxDiag, flags, p.Multiplier, PacketLen)
	dst = binary.BigEndian.AppendUint32(dst, p.MyDiscr)
	dst = binary.BigEndian.AppendUint32(dst, p.YourDiscr)
	for _, d := range [...]time.Duration{p.DesiredMinTx, p.RequiredMinRx, p.MinEchoRx} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(d/time.Microsecond))
	}
	return dst
}

// interval decodes a number of microseconds.
func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}
