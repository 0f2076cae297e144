// Package probe is the wire format of the frames by which switches measure the way
// between them: along which ports a frame goes from host to host (Path, Report), and
// how long a frame a tunnel really carries (Echo, EchoReply).
//
// It sends nothing, and decides nothing; package ctl does. Its one idea is that a
// probe is an ordinary Ethernet frame with the addresses of the traffic that it stands
// for, so that switches which know nothing of it treat it as they would that traffic.
//
// A probe, behind its VLAN tag if it has one, in network byte order:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                        Source Address                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       EtherType 0x88b5        |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|           Magic: "vswitch", and the version, 1                |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |     Kind      |      Hop      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      TTL      |   Reserved    |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                              ID                               |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|             Span              |                               |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                            Sent at                            |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |        Payload Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Payload, at most 1,024 bytes; then padding           |
//
// ID names a measurement, and is random: who does not know it cannot answer for
// another. Span names one copy of a probe, so that a report can be told to be of this
// copy and not of that, where a frame is flooded. Sent at is the sender's own clock in
// nanoseconds, for itself alone: the clocks of two hosts are never compared.
//
// # Hostile input
//
// Whoever can send into a tunnel can send a probe. Decode takes nothing that it does
// not know; all lengths are bounded; text is cut to MaxText bytes and to printable
// characters.
package probe
