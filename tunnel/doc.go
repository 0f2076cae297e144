// Package tunnel is where frames leave for other hosts: VXLAN, GRE and Geneve.
//
// It knows no bridge and no configuration document, and decides nothing about
// where a frame goes. Its one idea is that the sockets belong to an Endpoint (a
// kind, a local address, a UDP port) and not to a tunnel port: ten thousand ports
// are ten thousand entries of a table, and a frame finds its port by remote
// address and key in a few nanoseconds whatever their number.
//
// # Theory of operation
//
// The way in. Each worker has a socket of its own, in a SO_REUSEPORT set, and
// reads many messages with one recvmmsg. UDP_GRO lets a message be a train: many
// datagrams of one sender and of one length, one behind the other. A cursor walks
// over the messages and over each message's segments, and stays where it is when
// the worker's batch is full:
//
//	recvmmsg → [message][message]…          the queue's own buffers
//	             │ cut by the UDP_GRO size
//	             ▼
//	           [tunnel header | inner frame]…
//	             │ decode → find the port by (remote, key) → faults
//	             │ BFD → Control         ECN (RFC 6040) → MSS clamp
//	             ▼
//	           Coalescer: joined to a frame of the batch, or copied to a new one,
//	                      which may be unfinished (see unfinished.go)
//
// The way out. A worker sends by one port at a time, and has one sender for all
// of them: scratch memory in which headers are written, beside iovecs that point
// to payloads where they lie. Nothing of a frame is copied but its headers:
//
//	out → super-frame: Segmenter.NextHeader, again and again
//	      other frame: Frame.Headers, if its checksum is partial
//	        │
//	        ▼                                       arena        frame
//	      datagram = iovecs                        [tunnel|tag|headers] [payload]
//	        │ datagrams of one length that follow each other by the same socket
//	        ▼
//	      message = datagrams + UDP_SEGMENT  →  sendmmsg
//
// So a super-frame of 64 KiB is one message, and a run of small frames of equal
// length and one source port is one, too: 64 of 64 bytes go through the kernel, out
// and in, in 0.3 µs each, and in 3.6 µs as messages of their own. GRE has no such
// thing, and sends a datagram a message.
//
// A socket that is full in the middle of a super-frame leaves the rest to the next
// Send. An MTU that shrank is met there (EMSGSIZE), and asked for anew (PathMTU).
//
// # Source ports
//
// Routers spread the flows of an underlay by the outer UDP ports, so an endpoint
// sends by several sockets, and frame.FlowHash of the inner frame chooses which:
// one flow has one source port, and keeps its order. These sockets only send; a
// filter drops what is sent to them. GRE has no ports, and one socket.
//
// # Thread-safety
//
// Recv of a queue, and Send by a worker's number, are for that one worker. All
// else may be called from anywhere. Lock order: Endpoint.mu before rawRegistry.mu;
// the other locks are held alone.
package tunnel
