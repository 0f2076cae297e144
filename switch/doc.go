// Package vswitch is the forwarding core: bridges, ports, the pipeline a frame
// goes through, and the workers that carry it. It knows nothing of interfaces,
// files or configuration documents; package ctl makes it match those.
//
// # Theory of operation
//
// A worker is an OS thread with an epoll instance. Each receive queue of each
// port belongs to one worker, which reads a batch with one system call
// (worker.go), sends every frame of it through the pipeline (pipeline.go), and
// then sends what was staged for each output with one system call (transmit.go).
// Any worker may send on any port: a port's sockets are the kernel's to share.
// A frame is never handed from one worker to another, so the order within a flow
// is the order in which its port's queue was read. An endpoint's queues are read
// like a port's, but bring frames of many ports (endpoint.go).
//
// What a worker knows of the configuration is an immutable snapshot behind one
// atomic pointer (snapshot.go), which it loads once a batch. The control side
// (switch.go, port.go) publishes a new snapshot, one for all ports that are added or
// removed together, and then waits until every worker has come back to its mailbox:
// after that nobody uses what the old snapshot alone knew, and a device may be closed.
// It is RCU with the workers' loops as the grace period.
//
// What nobody may make a worker wait for goes through bounded rings: frames a
// device would not take at once (transmit.go), and copies for capture files
// (capture.go, ring.go).
//
// # Accounting
//
// Every frame that a port received is sent at least once, or dropped with a
// reason (reasons.go), once; each further output is a copy. For every bridge,
// when nothing is in flight,
//
//	received + flood copies + mirror copies + split copies + answers == sent + dropped
//
// where answers are ICMP messages that the switch makes itself (answer.go).
//
// Counters are kept for each worker and summed by the reader (counters.go). Those of a
// reason take memory from the first frame that a port drops for it.
//
// # Locks
//
// Switch.mu is for the control side alone. A worker takes two locks: its mailbox's
// own, when it was woken for it, and a bridge's FDB's, when a MAC address is new
// or moved; neither is held across a system call. Order: Switch.mu, then a
// mailbox's or an FDB's, and never both of those. What is kept of frames for people
// to look at (recorder.go, counters.go) has locks that a worker only tries: who reads
// holds them for one frame, which the worker then does without.
package vswitch
