package sflow

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// recorded is an encoder whose datagrams are kept.
func recorded(agent string, sub uint32) (e *Encoder, sent *[][]byte) {
	sent = new([][]byte)
	return NewEncoder(netip.MustParseAddr(agent), sub, func(d []byte) { *sent = append(*sent, bytes.Clone(d)) }), sent
}

// TestGolden: a datagram byte for byte, written out by hand from the specification.
func TestGolden(t *testing.T) {
	e, sent := recorded("10.0.0.1", 7)
	e.Flow(&Flow{
		Source: Entity(7), Rate: 400, Pool: 1234, Drops: 5, Input: 3, Output: OutputTo(4), Header: []byte("abcde"), FrameLen: 60,
		VLANIn: 10, PriorityIn: 3, VLANOut: 20, PriorityOut: 2,
	}, 0)
	e.Counters(&Counters{
		Index: 3, Speed: 10_000_000_000, Duplex: 1, Status: StatusAdminUp | StatusUp,
		In:  Way{Octets: 1 << 32, Unicast: 1, Multicast: Unknown, Broadcast: Unknown, Discards: 2, Errors: 3},
		Out: Way{Octets: 9, Unicast: 4, Multicast: Unknown, Broadcast: Unknown, Discards: 5, Errors: 6},
	}, 0)
	e.Flush(1500 * time.Millisecond)
	e.Flush(time.Hour) // nothing waits
	want := strings.Join(strings.Fields(`
		00000005 00000001 0a000001 00000007 00000001 000005dc 00000002
		00000001 00000058
			00000001 02000007 00000190 000004d2 00000005 00000003 00000004 00000002
			00000001 00000018 00000001 00000040 00000004 00000005 6162636465 000000
			000003e9 00000010 0000000a 00000003 00000014 00000002
		00000002 0000006c
			00000001 00000003 00000001
			00000001 00000058 00000003 00000006 00000002540be400 00000001 00000003
			0000000100000000 00000001 ffffffff ffffffff 00000002 00000003 ffffffff
			0000000000000009 00000004 ffffffff ffffffff 00000005 00000006 ffffffff`), "")
	if len(*sent) != 1 || hex.EncodeToString((*sent)[0]) != want {
		t.Errorf("got  %x\nwant %s", *sent, want)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want uint32 }{
		{uint32(OutputTo(9)), 9},
		{uint32(OutputMany(7)), 0x80000007},
		{uint32(OutputMany(1 << 40)), 0xbfffffff},
		{uint32(DiscardRate.Output()), 0x40000105},
		{uint32(Interface(1<<24 + 5)), 5},
		{uint32(Entity(0x812345)), 0x02812345},
	} {
		if c.got != c.want {
			t.Errorf("%#x, want %#x", c.got, c.want)
		}
	}
}

// TestAgentMoves: the address is that of when the datagram leaves, of either family.
func TestAgentMoves(t *testing.T) {
	e, sent := recorded("10.0.0.1", 1)
	for _, agent := range []string{"10.0.0.1", "fd00::1", "10.0.0.2"} {
		e.SetAgent(netip.MustParseAddr(agent))
		e.Counters(&Counters{Index: 1}, 0)
		e.Flush(0)
		d := decode(t, (*sent)[len(*sent)-1])
		if d.agent.String() != agent || d.sequence != uint32(len(*sent)) || len(d.counters) != 1 || d.counters[0].sequence != uint32(len(*sent)) {
			t.Errorf("%s: %+v", agent, d)
		}
	}
}

// TestAgainstDecoders: what is encoded is what two decoders read, one of them
// somebody else's; no datagram is too long, no sample is lost or out of order.
func TestAgainstDecoders(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		agent := []string{"192.0.2.1", "2001:db8::1"}[round%2]
		e, sent := recorded(agent, rng.Uint32())
		var flows []flow
		var counters []counter
		sampled, polled := map[Source]uint32{}, map[Source]uint32{}
		for range 1 + rng.IntN(60) {
			if rng.IntN(3) == 0 {
				c := randomCounters(rng)
				polled[Interface(c.Index)]++
				counters = append(counters, counter{polled[Interface(c.Index)], c})
				e.Counters(&c, time.Duration(round)*time.Second)
				continue
			}
			f := randomFlow(rng)
			sampled[f.Source]++
			kept := f
			kept.Header = f.Header[:min(len(f.Header), MaxHeader)]
			flows = append(flows, flow{sampled[f.Source], kept})
			e.Flow(&f, time.Duration(round)*time.Second)
		}
		e.Flush(time.Duration(round) * time.Second)
		if e.Pending() != 0 {
			t.Fatal("something waits after Flush")
		}
		var gotFlows []flow
		var gotCounters []counter
		for i, b := range *sent {
			if len(b) > MaxDatagram || len(b)%4 != 0 {
				t.Fatalf("a datagram of %d bytes", len(b))
			}
			d := decode(t, b)
			if d.agent.String() != agent || d.sub != e.sub || d.sequence != uint32(i+1) || d.uptime != uint32(round*1000) {
				t.Fatalf("head: %+v", d)
			}
			gotFlows, gotCounters = append(gotFlows, d.flows...), append(gotCounters, d.counters...)
			other(t, b, &d)
		}
		if !reflect.DeepEqual(gotFlows, flows) || !reflect.DeepEqual(gotCounters, counters) {
			t.Fatalf("got  %+v\n%+v\nwant %+v\n%+v", gotFlows, gotCounters, flows, counters)
		}
	}
}

func randomFlow(rng *rand.Rand) Flow {
	header := make([]byte, 14+rng.IntN([]int{50, 300, 1200}[rng.IntN(3)]))
	for i := range header {
		header[i] = byte(rng.Uint32())
	}
	header[12], header[13] = 0x88, 0xb5 // what the other decoder finds inside does not matter
	return Flow{
		Source: []Source{Entity(1), Interface(5)}[rng.IntN(2)], Rate: rng.Uint32(), Pool: rng.Uint32(), Drops: rng.Uint32(), Input: rng.Uint32N(MaxIndex),
		Output: []Output{OutputTo(7), OutputMany(3), DiscardTooBig.Output()}[rng.IntN(3)], Header: header, FrameLen: len(header) + rng.IntN(60000),
		VLANIn: uint16(rng.IntN(4095)), VLANOut: uint16(rng.IntN(4095)), PriorityIn: uint8(rng.IntN(8)), PriorityOut: uint8(rng.IntN(8)),
	}
}

func randomCounters(rng *rand.Rand) Counters {
	way := func() Way {
		return Way{rng.Uint64(), rng.Uint32(), rng.Uint32(), Unknown, rng.Uint32(), rng.Uint32()}
	}
	return Counters{Index: 1 + rng.Uint32N(4), Speed: rng.Uint64(), Duplex: rng.Uint32N(3), Status: rng.Uint32N(4), In: way(), Out: way()}
}

// other holds gopacket's decoder to what ours read.
func other(t *testing.T, b []byte, d *datagram) {
	t.Helper()
	var s layers.SFlowDatagram
	if err := s.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("gopacket: %v\n%x", err, b)
	}
	if s.DatagramVersion != 5 || s.AgentAddress.String() != d.agent.String() || s.SubAgentID != d.sub || s.SequenceNumber != d.sequence ||
		s.AgentUptime != d.uptime || len(s.FlowSamples) != len(d.flows) || len(s.CounterSamples) != len(d.counters) {
		t.Fatalf("gopacket: %+v\nours: %+v", s, d)
	}
	for i, f := range s.FlowSamples {
		want := d.flows[i]
		raw, ok := f.Records[0].(layers.SFlowRawPacketFlowRecord)
		sw, ok2 := f.Records[1].(layers.SFlowExtendedSwitchFlowRecord)
		if !ok || !ok2 || f.SequenceNumber != want.sequence || f.SamplingRate != want.Rate || f.SamplePool != want.Pool || f.Dropped != want.Drops ||
			f.InputInterface != want.Input || f.OutputInterfaceFormat<<30|f.OutputInterface != uint32(want.Output) ||
			uint32(f.SourceIDClass)<<24|uint32(f.SourceIDIndex) != uint32(want.Source) {
			t.Fatalf("gopacket: %+v\nours: %+v", f, want)
		}
		if int(raw.FrameLength) != want.FrameLen+4 || raw.PayloadRemoved != 4 || int(raw.HeaderLength) != len(want.Header) ||
			raw.HeaderProtocol != layers.SFlowProtoEthernet {
			t.Fatalf("gopacket: %+v\nours: %+v", raw, want)
		}
		if sw.IncomingVLAN != uint32(want.VLANIn) || sw.OutgoingVLAN != uint32(want.VLANOut) ||
			sw.IncomingVLANPriority != uint32(want.PriorityIn) || sw.OutgoingVLANPriority != uint32(want.PriorityOut) {
			t.Fatalf("gopacket: %+v\nours: %+v", sw, want)
		}
	}
	for i, c := range s.CounterSamples {
		want := d.counters[i]
		got, ok := c.Records[0].(layers.SFlowGenericInterfaceCounters)
		if !ok || c.SequenceNumber != want.sequence || got.IfIndex != want.Index || got.IfSpeed != want.Speed || got.IfType != 6 ||
			got.IfInOctets != want.In.Octets || got.IfInUcastPkts != want.In.Unicast || got.IfInDiscards != want.In.Discards ||
			got.IfOutOctets != want.Out.Octets || got.IfOutUcastPkts != want.Out.Unicast || got.IfOutErrors != want.Out.Errors {
			t.Fatalf("gopacket: %+v\nours: %+v", got, want)
		}
	}
}

// TestNoAllocs: a collector that wants many samples does not cost garbage.
func TestNoAllocs(t *testing.T) {
	e := NewEncoder(netip.MustParseAddr("10.0.0.1"), 1, func([]byte) {})
	f := Flow{Source: Entity(1), Header: make([]byte, 125), FrameLen: 1500}
	c := Counters{Index: 4}
	e.Flow(&f, 0)
	e.Counters(&c, 0)
	if n := testing.AllocsPerRun(1000, func() { e.Flow(&f, 0); e.Counters(&c, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
