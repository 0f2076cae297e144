package ports

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// in runs f in a network namespace that goes with it:
//
//	v0 ──────── v1      one veth pair, both ends up
func in(t *testing.T, f func(t *testing.T, v0, v1 Link)) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	done := make(chan struct{})
	go func() { // ends with f; its thread and the namespace go with it
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Error(err)
			return
		}
		var ls []Link
		for _, name := range []string{"v0", "v1"} {
			l, ok, err := LinkByName(name)
			if err == nil && ok {
				err = Raise(l.Index)
			}
			if err != nil || !ok {
				t.Errorf("%s: %t, %v", name, ok, err)
				return
			}
			ls = append(ls, l)
		}
		// Until the kernel's worker that follows carriers has given them their queues, they
		// lose what is sent, without an error.
		for _, l := range ls {
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				is, err := netlink.LinkByIndex(l.Index)
				if err == nil && is.Attrs().OperState == netlink.OperUp {
					break
				}
				if time.Now().After(end) {
					t.Errorf("%s is not up after 10 s: %v", l.Name, err)
					return
				}
			}
		}
		f(t, ls[0], ls[1])
	}()
	<-done
}

// TestStopBelongsToOneInstance: another switch's stop is an error, one of our own
// that a crash left is not, and each kind is judged against both.
func TestStopBelongsToOneInstance(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		for _, mine := range []StopKind{StopTCX, StopClsact} {
			for _, other := range []StopKind{StopTCX, StopClsact} {
				a, b := NewStopper("aaaaaaaaaaaaaaaa", mine), NewStopper("bbbbbbbbbbbbbbbb", other)
				st, err := a.Stop(v0.Index)
				if err != nil {
					t.Errorf("%s: %v", mine, err)
					return
				}
				if !st.Stands() || st.Kind() != mine {
					t.Errorf("%s: stands %t, kind %s", mine, st.Stands(), st.Kind())
				}
				if taken, err := b.Stop(v0.Index); err == nil {
					t.Errorf("%s over another's %s: no error", other, mine)
					taken.Close()
				}
				if !st.Stands() {
					t.Errorf("%s: gone after another tried %s", mine, other)
				}
				if err := st.Close(); err != nil {
					t.Errorf("%s: close: %v", mine, err)
				}
				if st, err = b.Stop(v0.Index); err != nil {
					t.Errorf("%s after %s was closed: %v", other, mine, err)
				} else {
					st.Close()
				}
				a.Close()
				b.Close()
			}
		}
		if qs, err := netlink.QdiscList(byIndex(v0.Index)); err != nil || hasClsact(qs) {
			t.Errorf("a clsact qdisc stayed: %v, %v", qs, err)
		}
	})
}

func hasClsact(qs []netlink.Qdisc) bool {
	for _, q := range qs {
		if q.Type() == "clsact" {
			return true
		}
	}
	return false
}

func TestStopThatSomebodyRemoved(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		s := NewStopper("aaaaaaaaaaaaaaaa", StopAuto)
		defer s.Close()
		st, err := s.Stop(v0.Index)
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.QdiscDel(clsact(v0.Index)); err != nil {
			t.Error(err)
		}
		if st.Stands() {
			t.Error("a stop whose qdisc was removed stands")
		}
		if err := st.Close(); err != nil {
			t.Errorf("close of a stop that is gone: %v", err)
		}
	})
}

// TestOn: an interface that went and came back under its index is another one.
func TestOn(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		d, err := OpenPacket("v0", v0.Index, PacketOptions{Queues: 2})
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		if !d.On(v0.Index) || d.On(v0.Index+1) {
			t.Error("a new device is not on its interface, or on another")
		}
		if err := RemoveLink("v0"); err != nil {
			t.Error(err)
		}
		again := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0", Index: v0.Index}, PeerName: "v1"}
		if err := netlink.LinkAdd(again); err != nil {
			t.Error(err)
		}
		if d.On(v0.Index) {
			t.Error("a device is on an interface that was made after it")
		}
	})
}

// TestPacketCarriesTagsAndOffload sends one frame with a tag and an unfinished
// checksum from one end of a veth to the other.
func TestPacketCarriesTagsAndOffload(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, err := OpenPacket("v0", v0.Index, PacketOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		b, err := OpenPacket("v1", v1.Index, PacketOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		defer b.Close()
		pool, err := frame.NewPool(2 * frame.MaxBatch)
		if err != nil {
			t.Error(err)
			return
		}
		defer pool.Close()
		batch := frame.NewBatch(pool)
		for _, tpid := range []uint16{frame.TPID8021Q, frame.TPID8021AD} {
			f := pool.Get()
			data := make([]byte, 60)
			copy(data, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46})
			data[22], data[23] = 64, 17
			f.Set(data)
			f.Offload = frame.Offload{Flags: frame.NeedsCsum, CsumStart: 34, CsumOffset: 6}
			tag := frame.Tag{TPID: tpid, TCI: 5<<13 | 42}
			var got *frame.Frame
			// The kernel drops what is sent before it has noticed that both ends of
			// a new veth are up.
			for try := 0; got == nil && try < 50; try++ {
				if n, errno := a.Send(0, new(frame.Vectors), []frame.Out{{F: f, Tag: tag}}); n != 1 {
					t.Errorf("send: %d, %v", n, errno)
					return
				}
				got = receive(b, batch, data[:12])
			}
			if got == nil {
				t.Errorf("TPID %#x: nothing came", tpid)
				return
			}
			if got.Tag != tag || got.Offload != f.Offload || string(got.Bytes()) != string(data) {
				t.Errorf("TPID %#x: came with tag %+v, offload %+v, bytes % x", tpid, got.Tag, got.Offload, got.Bytes())
			}
			pool.Release(f)
		}
	})
}

// receive returns the next frame with these addresses: the kernel speaks on a new
// interface, too.
func receive(d *Packet, b *frame.Batch, addresses []byte) *frame.Frame {
	for range 100 {
		fds := []unix.PollFd{{Fd: int32(d.FD(0)), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 100); n == 0 && err == nil {
			return nil
		}
		n, _ := d.Recv(0, b, frame.MaxBatch)
		for _, f := range b.Frames[:n] {
			if string(f.Bytes()[:12]) == string(addresses) {
				return f
			}
		}
		b.Renew()
	}
	return nil
}

// TestSetAddresses: nothing is touched that is right already, so that no event
// comes of it.
func TestSetAddresses(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
		want := []netip.Prefix{p("10.0.0.1/24"), p("10.0.0.2/24")}
		if err := SetAddresses(v0.Index, nil, want); err != nil {
			t.Error(err)
			return
		}
		events := make(chan netlink.AddrUpdate, 16)
		done := make(chan struct{})
		defer close(done)
		if err := netlink.AddrSubscribe(events, done); err != nil {
			t.Error(err)
			return
		}
		if err := SetAddresses(v0.Index, want, want); err != nil {
			t.Error(err)
		}
		if err := SetAddresses(v0.Index, want, want[1:2]); err != nil {
			t.Error(err)
		}
		if e := <-events; e.NewAddr {
			t.Errorf("the first event is of %v being set: it was there", e.LinkAddress)
		}
		all, err := netlink.AddrList(byIndex(v0.Index), netlink.FAMILY_V4)
		if err != nil || len(all) != 1 || all[0].IP.String() != "10.0.0.2" {
			t.Errorf("addresses left: %v, %v", all, err)
		}
	})
}

func TestOrphan(t *testing.T) {
	for name, want := range map[string]bool{
		"vsw.1.3": false, "vsw.99999999.1": true, "vsw.x.1": false, "vsw.": false, "veth0": false, "vsw.-4.1": false,
	} {
		if got := orphan(name); got != want {
			t.Errorf("orphan(%q) is %t", name, got)
		}
	}
}

// TestPersistentTAPIsSilent: the host does not speak into a virtual machine.
func TestPersistentTAPIsSilent(t *testing.T) {
	in(t, func(t *testing.T, _, _ Link) {
		if err := MakePersistentTAP("vm0", TAPOptions{Owner: -1, Group: -1}); err != nil {
			t.Error(err)
			return
		}
		mode, err := os.ReadFile("/proc/sys/net/ipv6/conf/vm0/addr_gen_mode")
		if err != nil || strings.TrimSpace(string(mode)) != "1" {
			t.Errorf("IPv6 address generation mode is %q, %v; want 1, none", mode, err)
		}
	})
}

// TestStopOfTheDead: the stop of an instance that was killed is in nobody's way.
func TestStopOfTheDead(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		a, b := NewStopper("aaaaaaaaaaaaaaaa", StopClsact), NewStopper("bbbbbbbbbbbbbbbb", StopClsact)
		defer b.Close()
		if _, err := a.Stop(v0.Index); err != nil {
			t.Error(err)
			return
		}
		a.Close() // as good as killed: its filter stays, and it does not listen
		st, err := b.Stop(v0.Index)
		if err != nil {
			t.Errorf("over the stop of an instance that is gone: %v", err)
			return
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if qs, err := netlink.QdiscList(byIndex(v0.Index)); err != nil || hasClsact(qs) {
			t.Errorf("a clsact qdisc stayed: %v, %v", qs, err)
		}
	})
}

// TestRestore: a stop that was put back takes its qdisc along in the end.
func TestRestore(t *testing.T) {
	in(t, func(t *testing.T, v0, _ Link) {
		s := NewStopper("aaaaaaaaaaaaaaaa", StopClsact)
		defer s.Close()
		st, err := s.Stop(v0.Index)
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.FilterDel(st.filter); err != nil {
			t.Error(err)
		}
		if st.Stands() {
			t.Error("a stop whose filter was removed stands")
		}
		if err := s.Restore(st); err != nil || !st.Stands() {
			t.Errorf("restore: %v, stands %t", err, st.Stands())
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if qs, err := netlink.QdiscList(byIndex(v0.Index)); err != nil || hasClsact(qs) {
			t.Errorf("a clsact qdisc stayed: %v, %v", qs, err)
		}
	})
}
