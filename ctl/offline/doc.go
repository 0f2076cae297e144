// Package offline tests a desired document without a network: it builds a real switch
// of it, whose devices are memory, puts the frames of a capture into it, and tells
// which left by which ports with which tag, and which were dropped and why. It needs no
// daemon and no privileges. It is for users' own tests, in their CI; it opens no
// interface, no socket and no file.
//
// Its one idea: nothing is simulated but the wires. The forwarding is package vswitch's,
// and what options mean is what ctl/translate says, as in the daemon.
//
// It is the one way in which vswitchctl uses more of this program than the API's client.
//
// What depends on time has no part in it, so that a test says the same every time:
// storm limits and mac-flap-limit are off, and frames come without the pauses of the
// capture. ICMP answers of tunnels are the exception: twenty at once are given, as by
// the daemon. A mirror to a file writes nothing.
package offline
