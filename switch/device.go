package vswitch

import (
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Device moves frames between the switch and one interface. Packages ports and
// tunnel have them.
//
// Each receive queue is read by one worker; Send may be called by many at once.
// A device never waits: a call that could not be done at once returns EAGAIN.
type Device interface {
	// Queues returns the number of receive queues: at least 1, or 0 for a device
	// whose frames come by an Endpoint. It never changes.
	Queues() int

	// FD returns queue q's file descriptor, for epoll. It never changes.
	FD(q int) int

	// Recv fills b.Frames[:n] with up to limit frames in normal form that wait on
	// queue q, sets b.N to n, and returns n. When n < limit, errno says why there
	// are no more: 0 or EAGAIN when none waits; any other errno is one frame that
	// was lost (EINVAL: the kernel could not express its offload state), or the
	// state of the interface (ENETDOWN).
	// The frames' bytes stay the batch's; the device keeps nothing of them.
	Recv(q int, b *frame.Batch, limit int) (n int, errno unix.Errno)

	// Send sends out in order for worker number worker, and returns how many went
	// out; when not all did, errno is what out[n] met: EAGAIN when the device is
	// full (then SendFD(worker) polls writable when it is not), else the reason why
	// out[n] alone cannot be sent. v is the worker's, lent for this call. Send
	// leaves the frames' bytes as they are, and keeps nothing of them.
	Send(worker int, v *frame.Vectors, out []frame.Out) (n int, errno unix.Errno)

	// SendFD returns the descriptor that polls writable when the device, of which
	// Send last told this worker that it is full, takes frames again. Several
	// devices may have the same.
	SendFD(worker int) int

	// Offloads reports whether Send takes super-frames and unfinished checksums.
	// If not, frames are finished in software before. It never changes.
	Offloads() bool

	// Missed returns how many frames were dropped before they could be received,
	// since the device was opened.
	Missed() uint64

	// Close frees what the device holds. Nothing is called afterwards.
	Close() error
}

// Endpoint receives frames for many ports: a tunnel's local sockets, which all
// tunnel ports of that kind and address share. Its queues are spread over the
// workers.
type Endpoint interface {
	// Queues, FD and Recv are as a Device's, but for this: Recv sets Port of each
	// frame, to what the frame's port was told by Bind, and drops by itself, with a
	// counter of its own, what belongs to no port.
	Queues() int
	FD(q int) int
	Recv(q int, b *frame.Batch, limit int) (n int, errno unix.Errno)
}

// Bound is a Device whose frames come by an Endpoint.
type Bound interface {
	Device
	// Bind tells the device's number as a port, once: from now on the endpoint
	// may bring frames with it.
	Bind(port uint32)
	// Unbind ends that. A frame that a Recv under way brings may still have it.
	Unbind()
}
