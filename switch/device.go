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
	// Queues returns the number of receive queues, at least 1. It never changes.
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

	// Send sends out in order by queue q, and returns how many went out; when not
	// all did, errno is what out[n] met: EAGAIN when the device is full (then
	// FD(q) polls writable when it is not), else the reason why out[n] alone
	// cannot be sent. v is the worker's, lent for this call. Send leaves the
	// frames' bytes as they are, and keeps nothing of them.
	Send(q int, v *frame.Vectors, out []frame.Out) (n int, errno unix.Errno)

	// Offloads reports whether Send takes super-frames and unfinished checksums.
	// If not, frames are finished in software before. It never changes.
	Offloads() bool

	// Missed returns how many frames were dropped before they could be received,
	// since the device was opened.
	Missed() uint64

	// Close frees what the device holds. Nothing is called afterwards.
	Close() error
}
