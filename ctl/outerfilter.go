package ctl

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"

	"vswitch/ctl/config"
	"vswitch/frame"
)

// mostRemotes is how many hosts the kernel's filter tells apart; with more it lets all
// packets of the tunnels' kinds through, and the capture sorts them out.
const mostRemotes = 8

// outerFilter makes the classic BPF program that lets the packets of tunnels through:
//
//	IPv4:  from or to one of the remotes; GRE, or UDP to one of the ports, or a
//	       fragment that is not the first
//	IPv6:  the same; any fragment
//
// ethernet says that packets begin with an Ethernet header.
func outerFilter(tunnels []outerTunnel, ethernet bool) ([]bpf.RawInstruction, error) {
	var gre bool
	var ports []uint16
	var remotes []netip.Addr
	for _, t := range tunnels {
		if t.kind == config.GREPort {
			gre = true
		} else if !slices.Contains(ports, t.dport) {
			ports = append(ports, t.dport)
		}
		if !slices.Contains(remotes, t.remote) {
			remotes = append(remotes, t.remote)
		}
	}
	any := len(remotes) > mostRemotes
	var a assembler
	l3 := uint32(0)
	if ethernet {
		l3 = frame.EthLen
		a.load(frame.AddrLen, 2)
		a.when(frame.EtherIPv4, "ip4")
		a.when(frame.EtherIPv6, "ip6")
		a.jump("no")
	} else {
		a.load(0, 1)
		a.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
		a.when(4, "ip4")
		a.when(6, "ip6")
		a.jump("no")
	}

	a.label("ip4")
	for _, r := range remotes {
		if r.Is4() && !any {
			b := r.As4()
			for _, at := range []uint32{12, 16} { // source, destination
				a.load(l3+at, 4)
				a.when(binary.BigEndian.Uint32(b[:]), "proto4")
			}
		}
	}
	if !any {
		a.jump("no")
	}
	a.label("proto4")
	a.load(l3+9, 1)
	if gre {
		a.when(protoGRE, "yes")
	}
	a.unless(frame.ProtoUDP, "no")
	a.load(l3+6, 2)
	a.add(bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 0x1fff, SkipTrue: 1})
	a.jump("yes")
	a.add(bpf.LoadMemShift{Off: l3})
	a.add(bpf.LoadIndirect{Off: l3 + 2, Size: 2})
	for _, p := range ports {
		a.when(uint32(p), "yes")
	}
	a.jump("no")

	a.label("ip6")
	for i, r := range remotes {
		if r.Is6() && !any {
			b := r.As16()
			for _, at := range []uint32{8, 24} { // source, destination
				next := string(rune('a'+i)) + string(rune('0'+at/8))
				for w := uint32(0); w < 16; w += 4 {
					a.load(l3+at+w, 4)
					a.unless(binary.BigEndian.Uint32(b[w:]), next)
				}
				a.jump("proto6")
				a.label(next)
			}
		}
	}
	if !any {
		a.jump("no")
	}
	a.label("proto6")
	a.load(l3+6, 1)
	if gre {
		a.when(protoGRE, "yes")
	}
	const fragment = 44
	a.when(fragment, "yes")
	a.unless(frame.ProtoUDP, "no")
	a.load(l3+frame.IPv6Len+2, 2)
	for _, p := range ports {
		a.when(uint32(p), "yes")
	}

	a.label("no")
	a.add(bpf.RetConstant{Val: 0})
	a.label("yes")
	a.add(bpf.RetConstant{Val: 1 << 20})
	return a.assemble()
}

// assembleNothing makes the program that lets nothing through.
func assembleNothing() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
}

// assembler knows labels, all of them ahead of their jumps.
type assembler struct {
	code   []bpf.Instruction
	labels map[string]int
	jumps  map[int]string // where to, by place
}

func (a *assembler) add(i bpf.Instruction)     { a.code = append(a.code, i) }
func (a *assembler) load(at uint32, bytes int) { a.add(bpf.LoadAbsolute{Off: at, Size: bytes}) }

// when jumps if the accumulator is v, unless if it is not. Both take two instructions:
// only an unconditional jump reaches any distance.
func (a *assembler) when(v uint32, label string) {
	a.add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1})
	a.jump(label)
}

func (a *assembler) unless(v uint32, label string) {
	a.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1})
	a.jump(label)
}

func (a *assembler) jump(label string) {
	if a.jumps == nil {
		a.jumps = map[int]string{}
	}
	a.jumps[len(a.code)] = label
	a.add(nil) // assemble knows
}

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = map[string]int{}
	}
	a.labels[name] = len(a.code)
}

func (a *assembler) assemble() ([]bpf.RawInstruction, error) {
	for at, label := range a.jumps {
		a.code[at] = bpf.Jump{Skip: uint32(a.labels[label] - at - 1)}
	}
	return bpf.Assemble(a.code)
}
