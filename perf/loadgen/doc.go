// Package loadgen sends and receives Ethernet frames at speed, and says exactly
// what became of them. It is for measuring a switch between two or more of its
// ports. It is not a traffic model: TCP and request-response belong to the tools
// that do them well.
//
// Its one idea is that nothing is guessed: each frame carries its flow, its number
// within the flow and the time it left, so loss, reordering and duplication are
// counted flow by flow, and what the generator itself could not do is counted
// apart: Sent.Refused never entered the wire, Counts.Unread reached the receiver's
// interface and found no room in its ring. Neither is ever blamed on the switch.
//
//	Sender ── sendmmsg ──► interface ── switch ──► interface ── TPACKET_V3 ring ──► Receiver
//	stamps: flow, seq, CLOCK_MONOTONIC                          kernel's time of arrival
//
// A measurement reads:
//
//	tx, err := loadgen.OpenSender("eth0")      // in the sender's namespace
//	rx, err := loadgen.OpenReceiver("eth0", 1) // in the receiver's
//	err = rx.Start()
//	sent, err := tx.Send(ctx, loadgen.Stream{Sizes: []int{60}, Flows: 1, Duration: time.Second})
//	counts, err := rx.Stop(sent)
//
// A switch learns where flows lead from the other side: Announce(ctx, DstMAC, …) on
// the receiver's interface. A Stream to Unknown or Broadcast is flooded, and has
// as many receivers as wanted.
//
// # Latency
//
// A frame's latency is from the stamp to the kernel's receipt on the receiver's
// interface. Frames that leave in one system call share a stamp, so a stream
// that goes as fast as it can measures its own bursts and the switch's queues; a
// stream paced at 10,000 a second or less leaves frame by frame.
//
// # Pacing
//
// A paced sender sleeps between bursts of what is due, 100 µs apart, rather than
// spin: the switch needs the core. A sender that woke late catches up, by
// bursts of at most 64 frames or twice a burst's share.
//
// # What it costs
//
// Measured by BenchmarkSend and BenchmarkWire on two shared cores, 60-byte frames,
// one flow or a million alike, over a plain veth pair with no switch:
//
//	send, nobody listening      710,000 – 850,000 a second, 1.26 µs of CPU a frame
//	send and receive            550,000 – 640,000 a second, 1.65 µs of CPU a frame, none unread
//	of it: to write a frame     17 ns
//	       to read and count it 15 ns
//	       the rest             the kernel's way from sendmmsg to the ring
//	paced at 100,000 a second   33 – 38 % of one core
//
// So 98 % is what the kernel asks for a frame's way through a packet socket, a veth
// pair and a ring. It weighs on every switch alike: where generator and switch
// share cores, ratios between switches come out narrower than they are, never
// wider.
//
// A receiver by recvmmsg, 64 frames a call, cost 2.0 µs a frame more than none at
// all, the ring 0.35 µs. PACKET_QDISC_BYPASS made no difference that stood out on
// a veth, which has no queueing discipline; it is set for interfaces that have one.
package loadgen
