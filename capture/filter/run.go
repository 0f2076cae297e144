package filter

import (
	"encoding/binary"

	"golang.org/x/net/bpf"

	"vswitch/frame"
)

// insn is an instruction as run runs it. Jumps hold the number of the instruction
// that they lead to.
type insn struct {
	op     op
	jt, jf uint16
	off    uint32 // of a load that a comparison with k follows in the same instruction
	k      uint32
}

// op is an operation of run, numbered without gaps so that a switch is a jump table.
type op uint8

const (
	runReturn op = iota
	runJump
	// Load and compare with k: what most of a program is.
	runByteEqual
	runHalfEqual
	runWordEqual
	runHalfXEqual
	runHalfSet

	runByte
	runHalf
	runWord
	runByteX
	runHalfX
	runWordX
	runHeaderX // X = 4 * (byte & 0xf)
	runImm
	runLen
	runMem

	// Loads of the tag beside the frame, and such that may touch it.
	runTPID
	runTCI
	runTagByte
	runTagHalf
	runTagWord
	runTagByteX
	runTagHalfX
	runTagWordX
	runTagHeaderX

	runStore
	runTAX
	runNeg

	runEqual
	runGreater
	runAtLeast
	runSet
	runEqualX
	runGreaterX
	runAtLeastX
	runSetX

	runAdd
	runSub
	runMul
	runDiv
	runMod
	runAnd
	runOr
	runXor
	runLsh
	runRsh
	runAddX
	runSubX
	runMulX
	runDivX
	runModX
	runAndX
	runOrX
	runXorX
	runLshX
	runRshX
)

var runOps = map[uint16]op{
	opRET: runReturn, opJA: runJump,
	opLDB: runByte, opLDH: runHalf, opLDW: runWord,
	opLDBIND: runByteX, opLDHIND: runHalfX, opLDWIND: runWordX,
	opLDXMSH: runHeaderX, opLDIMM: runImm, opLDLEN: runLen, opLDMEM: runMem,
	opST: runStore, opTAX: runTAX, opNEG: runNeg,
	opJEQ: runEqual, opJGT: runGreater, opJGE: runAtLeast, opJSET: runSet,
	opJEQ | fromX: runEqualX, opJGT | fromX: runGreaterX, opJGE | fromX: runAtLeastX,
	opJSET | fromX:    runSetX,
	classALU | aluAdd: runAdd, classALU | aluSub: runSub, classALU | aluMul: runMul,
	classALU | aluDiv: runDiv, classALU | aluMod: runMod, classALU | aluAnd: runAnd,
	classALU | aluOr: runOr, classALU | aluXor: runXor, classALU | aluLsh: runLsh,
	classALU | aluRsh:         runRsh,
	classALU | aluAdd | fromX: runAddX, classALU | aluSub | fromX: runSubX,
	classALU | aluMul | fromX: runMulX, classALU | aluDiv | fromX: runDivX,
	classALU | aluMod | fromX: runModX, classALU | aluAnd | fromX: runAndX,
	classALU | aluOr | fromX: runOrX, classALU | aluXor | fromX: runXorX,
	classALU | aluLsh | fromX: runLshX, classALU | aluRsh | fromX: runRshX,
}

// runJoint has the pairs of operations that one does.
var runJoint = map[[2]op]op{
	{runByte, runEqual}:  runByteEqual,
	{runHalf, runEqual}:  runHalfEqual,
	{runWord, runEqual}:  runWordEqual,
	{runHalfX, runEqual}: runHalfXEqual,
	{runHalf, runSet}:    runHalfSet,
}

const tagAt = offType // where a tag beside the frame would stand

// tagLen is the length of a tag on the wire.
const tagLen = 4

// decode makes of a valid program what run runs. With tagged it is for frames with a
// tag beside them: a load before the tag stays, one behind it is of four bytes less,
// and what may touch it gets an operation that looks.
func decode(raw []bpf.RawInstruction, tagged bool) []insn {
	code := make([]insn, len(raw))
	for pc, in := range raw {
		code[pc] = insn{
			op: runOps[in.Op],
			jt: uint16(pc + 1 + int(in.Jt)), jf: uint16(pc + 1 + int(in.Jf)),
			k: in.K,
		}
		if in.Op == opJA {
			code[pc].jt = uint16(pc + 1 + int(in.K))
		}
		if tagged {
			moveLoad(&code[pc])
		}
	}
	// A load before a comparison becomes one instruction with it. Nothing jumps
	// between the two: jumps lead to the start of a block.
	target := make([]bool, len(raw)+1)
	for pc := range raw {
		if raw[pc].Op&classMask == classJump {
			target[code[pc].jt] = true
			if raw[pc].Op != opJA {
				target[code[pc].jf] = true
			}
		}
	}
	for pc := 0; pc+1 < len(code); pc++ {
		next := code[pc+1]
		joint, ok := runJoint[[2]op{code[pc].op, next.op}]
		if ok && !target[pc+1] {
			code[pc] = insn{op: joint, jt: next.jt, jf: next.jf, off: code[pc].k, k: next.k}
		}
	}
	return code
}

func moveLoad(in *insn) {
	size := uint32(0)
	switch in.op {
	case runByte, runHeaderX:
		size = 1
	case runHalf:
		size = 2
	case runWord:
		size = 4
	case runByteX, runHalfX, runWordX:
		in.op += runTagByteX - runByteX
		return
	default:
		return
	}
	switch {
	case in.k >= tagAt+tagLen:
		in.k -= tagLen
	case in.k == tagAt && in.op == runHalf:
		in.op = runTPID
	case in.k == tagAt+2 && in.op == runHalf:
		in.op = runTCI
	case in.k+size > tagAt:
		if in.op == runHeaderX {
			in.op = runTagHeaderX
		} else {
			in.op += runTagByte - runByte
		}
	}
}

// load reads size bytes at off of a frame with its tag at offset 12.
func load(b []byte, tag frame.Tag, off uint64, size uint64) (v uint32, ok bool) {
	if off+size > uint64(len(b))+tagLen {
		return 0, false
	}
	between := [tagLen]byte{byte(tag.TPID >> 8), byte(tag.TPID), byte(tag.TCI >> 8), byte(tag.TCI)}
	for i := off; i < off+size; i++ {
		switch {
		case i < tagAt:
			v = v<<8 | uint32(b[i])
		case i < tagAt+tagLen:
			v = v<<8 | uint32(between[i-tagAt])
		default:
			v = v<<8 | uint32(b[i-tagLen])
		}
	}
	return v, true
}

// run runs a program over a frame. It always ends: each step leads forward, to a ret
// at last.
func run(code []insn, b []byte, tag frame.Tag, wireLen uint32) bool {
	var a, x uint32
	var m [scratchWords]uint32
	for pc := 0; ; {
		in := &code[pc]
		yes := false
		switch in.op {
		case runReturn:
			return in.k != 0
		case runJump:
			pc = int(in.jt)
			continue

		case runByteEqual:
			off := uint64(in.off)
			if off >= uint64(len(b)) {
				return false
			}
			a = uint32(b[off])
			yes = a == in.k
		case runHalfEqual:
			off := uint64(in.off)
			if off+2 > uint64(len(b)) {
				return false
			}
			a = uint32(binary.BigEndian.Uint16(b[off:]))
			yes = a == in.k
		case runWordEqual:
			off := uint64(in.off)
			if off+4 > uint64(len(b)) {
				return false
			}
			a = binary.BigEndian.Uint32(b[off:])
			yes = a == in.k

		case runHalfXEqual:
			off := uint64(in.off) + uint64(x)
			if off+2 > uint64(len(b)) {
				return false
			}
			a = uint32(binary.BigEndian.Uint16(b[off:]))
			yes = a == in.k
		case runHalfSet:
			off := uint64(in.off)
			if off+2 > uint64(len(b)) {
				return false
			}
			a = uint32(binary.BigEndian.Uint16(b[off:]))
			yes = a&in.k != 0

		case runByte:
			off := uint64(in.k)
			if off >= uint64(len(b)) {
				return false
			}
			a = uint32(b[off])
			pc++
			continue
		case runHalf:
			off := uint64(in.k)
			if off+2 > uint64(len(b)) {
				return false
			}
			a = uint32(binary.BigEndian.Uint16(b[off:]))
			pc++
			continue
		case runWord:
			off := uint64(in.k)
			if off+4 > uint64(len(b)) {
				return false
			}
			a = binary.BigEndian.Uint32(b[off:])
			pc++
			continue
		case runByteX:
			off := uint64(in.k) + uint64(x)
			if off >= uint64(len(b)) {
				return false
			}
			a = uint32(b[off])
			pc++
			continue
		case runHalfX:
			off := uint64(in.k) + uint64(x)
			if off+2 > uint64(len(b)) {
				return false
			}
			a = uint32(binary.BigEndian.Uint16(b[off:]))
			pc++
			continue
		case runWordX:
			off := uint64(in.k) + uint64(x)
			if off+4 > uint64(len(b)) {
				return false
			}
			a = binary.BigEndian.Uint32(b[off:])
			pc++
			continue
		case runHeaderX:
			off := uint64(in.k)
			if off >= uint64(len(b)) {
				return false
			}
			x = 4 * uint32(b[off]&0xf)
			pc++
			continue

		case runTPID:
			a = uint32(tag.TPID)
			pc++
			continue
		case runTCI:
			a = uint32(tag.TCI)
			pc++
			continue
		case runTagByte, runTagHalf, runTagWord:
			v, ok := load(b, tag, uint64(in.k), 1<<(in.op-runTagByte))
			if !ok {
				return false
			}
			a = v
			pc++
			continue
		case runTagByteX, runTagHalfX, runTagWordX:
			v, ok := load(b, tag, uint64(in.k)+uint64(x), 1<<(in.op-runTagByteX))
			if !ok {
				return false
			}
			a = v
			pc++
			continue
		case runTagHeaderX:
			v, ok := load(b, tag, uint64(in.k), 1)
			if !ok {
				return false
			}
			x = 4 * (v & 0xf)
			pc++
			continue

		case runImm:
			a = in.k
			pc++
			continue
		case runLen:
			a = wireLen
			pc++
			continue
		case runMem:
			a = m[in.k%scratchWords]
			pc++
			continue
		case runStore:
			m[in.k%scratchWords] = a
			pc++
			continue
		case runTAX:
			x = a
			pc++
			continue
		case runNeg:
			a = -a
			pc++
			continue

		case runEqual:
			yes = a == in.k
		case runGreater:
			yes = a > in.k
		case runAtLeast:
			yes = a >= in.k
		case runSet:
			yes = a&in.k != 0
		case runEqualX:
			yes = a == x
		case runGreaterX:
			yes = a > x
		case runAtLeastX:
			yes = a >= x
		case runSetX:
			yes = a&x != 0

		case runAdd:
			a += in.k
			pc++
			continue
		case runSub:
			a -= in.k
			pc++
			continue
		case runMul:
			a *= in.k
			pc++
			continue
		case runDiv:
			a /= in.k
			pc++
			continue
		case runMod:
			a %= in.k
			pc++
			continue
		case runAnd:
			a &= in.k
			pc++
			continue
		case runOr:
			a |= in.k
			pc++
			continue
		case runXor:
			a ^= in.k
			pc++
			continue
		case runLsh:
			a <<= in.k
			pc++
			continue
		case runRsh:
			a >>= in.k
			pc++
			continue
		case runAddX:
			a += x
			pc++
			continue
		case runSubX:
			a -= x
			pc++
			continue
		case runMulX:
			a *= x
			pc++
			continue
		case runDivX:
			if x == 0 {
				return false
			}
			a /= x
			pc++
			continue
		case runModX:
			if x == 0 {
				return false
			}
			a %= x
			pc++
			continue
		case runAndX:
			a &= x
			pc++
			continue
		case runOrX:
			a |= x
			pc++
			continue
		case runXorX:
			a ^= x
			pc++
			continue
		case runLshX:
			a <<= x // 0 from 32 on, as in libpcap
			pc++
			continue
		case runRshX:
			a >>= x
			pc++
			continue
		}
		// A comparison is done.
		if yes {
			pc = int(in.jt)
		} else {
			pc = int(in.jf)
		}
	}
}
