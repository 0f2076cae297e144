package filter

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
)

// Operations of classic BPF, as in linux/filter.h, and as golang.org/x/net/bpf calls
// the parts of them.
const (
	classMask = 0x07
	classLDX  = 0x01
	classALU  = 0x04
	classJump = 0x05
	fromX     = 0x08 // the operand is X, not K

	opLDW    = 0x20 // A = 4 bytes at K
	opLDH    = 0x28
	opLDB    = 0x30
	opLDWIND = 0x40 // A = 4 bytes at X+K
	opLDHIND = 0x48
	opLDBIND = 0x50
	opLDIMM  = 0x00 // A = K
	opLDLEN  = 0x80 // A = bytes of the frame on the wire
	opLDMEM  = 0x60 // A = M[K]
	opLDXMSH = 0xb1 // X = 4 * (byte at K & 0xf)
	opST     = 0x02 // M[K] = A
	opTAX    = 0x07
	opRET    = 0x06
	opNEG    = 0x84

	opJA   = 0x05
	opJEQ  = 0x15
	opJGT  = 0x25
	opJGE  = 0x35
	opJSET = 0x45

	aluAdd = 0x00
	aluSub = 0x10
	aluMul = 0x20
	aluDiv = 0x30
	aluOr  = 0x40
	aluAnd = 0x50
	aluLsh = 0x60
	aluRsh = 0x70
	aluMod = 0x90
	aluXor = 0xa0

	scratchWords = 16 // M: BPF_MEMWORDS
)

// validate checks what run relies on, and what the kernel's bpf_check_classic asks
// for: known operations, jumps forward and within the program, no division by a
// constant zero, an end at the end.
func validate(code []bpf.RawInstruction) error {
	if len(code) == 0 || len(code) > MaxLen {
		return fmt.Errorf("%d instructions, 1 to %d are allowed", len(code), MaxLen)
	}
	for pc, in := range code {
		room := len(code) - pc - 1
		err := error(nil)
		switch in.Op {
		case opLDW, opLDH, opLDB, opLDWIND, opLDHIND, opLDBIND, opLDIMM, opLDLEN, opLDXMSH,
			opTAX, opRET, opNEG,
			classALU | aluAdd, classALU | aluSub, classALU | aluMul, classALU | aluOr,
			classALU | aluAnd, classALU | aluXor,
			classALU | aluAdd | fromX, classALU | aluSub | fromX, classALU | aluMul | fromX,
			classALU | aluDiv | fromX, classALU | aluMod | fromX, classALU | aluOr | fromX,
			classALU | aluAnd | fromX, classALU | aluXor | fromX,
			classALU | aluLsh | fromX, classALU | aluRsh | fromX:
		case classALU | aluDiv, classALU | aluMod:
			if in.K == 0 {
				err = errors.New("division by zero")
			}
		case classALU | aluLsh, classALU | aluRsh:
			if in.K > 31 {
				err = errors.New("shift by more than 31")
			}
		case opLDMEM, opST:
			if in.K >= scratchWords {
				err = fmt.Errorf("no scratch word %d", in.K)
			}
		case opJA:
			if uint64(in.K) >= uint64(room) {
				err = errors.New("jump out of the program")
			}
		case opJEQ, opJGT, opJGE, opJSET, opJEQ | fromX, opJGT | fromX, opJGE | fromX, opJSET | fromX:
			if int(in.Jt) >= room || int(in.Jf) >= room {
				err = errors.New("jump out of the program")
			}
		default:
			err = fmt.Errorf("unknown operation %#x", in.Op)
		}
		if err != nil {
			return fmt.Errorf("instruction %d: %w", pc, err)
		}
	}
	if code[len(code)-1].Op != opRET {
		return errors.New("it does not end with ret")
	}
	return nil
}
