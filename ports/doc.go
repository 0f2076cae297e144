// Package ports is where frames enter and leave this host: AF_PACKET sockets on
// interfaces that exist, and TAP interfaces that the switch makes. It also does
// what such a port needs of the kernel besides its frames: finding, raising and
// naming interfaces (link.go), and keeping a port's frames away from the host's
// own network stack (stop.go).
//
// It is not for deciding where a frame goes, nor for other hosts (see package
// tunnel). Its one idea: a device moves whole batches with their offload state,
// and is otherwise as thin as the system calls under it.
//
// A patch port is no device: its two ends meet inside the forwarding core.
package ports
