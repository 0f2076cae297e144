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
// stream paced below 20,000 a second leaves frame by frame.
//
// # Pacing
//
// A paced sender sleeps between bursts of what is due, 50 µs apart, rather than
// spin: the switch needs the core. A sender that woke late catches up, by
// bursts of at most 64 frames or twice a burst's share.
package loadgen
