// Package frame holds what moves through the switch: an Ethernet frame together
// with its offload state, batches of frames, and the pool their buffers come from.
//
// It knows no device, no bridge and no file descriptor. Its one idea is that a
// frame keeps the offload state it came with (struct virtio_net_hdr and the
// outermost VLAN tag) from entry to exit, so that a 64 KiB super-frame with an
// unfinished checksum crosses the switch untouched, and is finished in software
// (segmented, checksummed) only for a device that cannot take it.
//
// # Normal form
//
// Inside the switch every frame is in one form: the outermost VLAN tag, if there
// is one, stands in Frame.Tag and not in the bytes; Offload.CsumStart and HdrLen
// count from the first byte of Bytes(), which is the destination address. Devices
// bring a frame into this form on entry, and put the tag back on exit.
//
// # Ownership
//
// A Frame belongs to the worker whose Pool it came from, and is touched by no
// other thread. While it is staged for several outputs its bytes are shared and
// must not change: what differs from output to output (the tag) travels in Out.
package frame
