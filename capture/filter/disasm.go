package filter

import (
	"fmt"
	"strings"

	"golang.org/x/net/bpf"
)

// Disassembly returns the program as tcpdump -d prints it, one instruction a line.
func (p *Program) Disassembly() string {
	var b strings.Builder
	for pc, in := range p.Instructions() {
		name, operand := disassemble(in)
		line := fmt.Sprintf("(%03d) %-8s %s", pc, name, operand)
		switch {
		case in.Op == opJA:
			line = fmt.Sprintf("(%03d) %-8s %d", pc, name, pc+1+int(in.K))
		case in.Op&classMask == classJump:
			line = fmt.Sprintf("(%03d) %-8s %-16s jt %d\tjf %d", pc, name, operand, pc+1+int(in.Jt), pc+1+int(in.Jf))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

var mnemonics = map[uint16]string{
	opLDW: "ld", opLDH: "ldh", opLDB: "ldb", opLDWIND: "ld", opLDHIND: "ldh", opLDBIND: "ldb",
	opLDIMM: "ld", opLDLEN: "ld", opLDMEM: "ld", opLDXMSH: "ldxb", opST: "st", opTAX: "tax",
	opRET: "ret", opNEG: "neg", opJA: "ja", opJEQ: "jeq", opJGT: "jgt", opJGE: "jge", opJSET: "jset",
	classALU | aluAdd: "add", classALU | aluSub: "sub", classALU | aluMul: "mul",
	classALU | aluDiv: "div", classALU | aluMod: "mod", classALU | aluOr: "or",
	classALU | aluAnd: "and", classALU | aluXor: "xor", classALU | aluLsh: "lsh",
	classALU | aluRsh: "rsh",
}

func disassemble(in bpf.RawInstruction) (name, operand string) {
	op := in.Op
	if class := op & classMask; (class == classALU || class == classJump) && op&fromX != 0 {
		return mnemonics[op&^fromX], "x"
	}
	switch op {
	case opLDW, opLDH, opLDB:
		operand = fmt.Sprintf("[%d]", in.K)
	case opLDWIND, opLDHIND, opLDBIND:
		operand = fmt.Sprintf("[x + %d]", in.K)
	case opLDXMSH:
		operand = fmt.Sprintf("4*([%d]&0xf)", in.K)
	case opLDMEM, opST:
		operand = fmt.Sprintf("M[%d]", in.K)
	case opLDLEN:
		operand = "#pktlen"
	case opRET:
		operand = fmt.Sprintf("#%d", in.K)
	case opTAX, opNEG, opJA:
	default:
		operand = fmt.Sprintf("%#x", in.K)
		if in.K == 0 {
			operand = "0x0"
		}
		operand = "#" + operand
	}
	return mnemonics[op], operand
}
