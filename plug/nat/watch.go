package nat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchPause is the least time between two calls of Watch's changed: changes come in
// bursts, and some hosts' never end.
const watchPause = 300 * time.Millisecond

// watchDrain is how long the rest of a burst is read; a deadline that has passed reads nothing.
const watchDrain = 10 * time.Millisecond

// Watch calls changed soon after anybody changed anything of nftables, ourselves included,
// until ctx ends: it is then that Check may find something missing, such as when Docker
// starts, or somebody loads rules anew. The kernel's older iptables tables tell nobody.
func (f *Firewall) Watch(ctx context.Context, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	for {
		// What is told does not matter, nor that something was not (ENOBUFS).
		if _, err := c.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch nftables: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
		c.SetReadDeadline(time.Now().Add(watchDrain))
		for drained := false; !drained; {
			_, err := c.Receive()
			drained = err != nil && !errors.Is(err, unix.ENOBUFS)
		}
		c.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return nil
		}
		changed()
	}
}
