package vswitch

import (
	"bytes"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vswitch/fdb"
	"vswitch/frame"
)

// fake is a device without a kernel behind it: it receives what give is told and
// keeps what is sent. Its descriptor is an eventfd, readable while frames wait
// and always writable.
//
// Thread-safety: safe for concurrent use.
type fake struct {
	fd       int
	offloads bool
	discard  bool // what is sent is not kept

	mu     sync.Mutex
	in     []packet
	next   int
	repeat bool // receive the same again and again
	sent   []packet
	room   int        // frames that Send takes before EAGAIN; -1: all
	errno  unix.Errno // that Send meets at each frame, instead
	missed uint64
	closed bool

	counter [8]byte // read from the eventfd
}

// packet is a frame outside a buffer.
type packet struct {
	data    []byte
	tag     frame.Tag
	offload frame.Offload
	own     bool
}

func newFake(t testing.TB) *fake {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return &fake{fd: fd, offloads: true, room: -1}
}

// give makes frames wait to be received.
func (d *fake) give(ps ...packet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in = append(d.in, ps...)
	unix.Write(d.fd, []byte{0: 1, 7: 0})
}

// again makes what was given be received over and over, or no longer.
func (d *fake) again(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.repeat = on
}

// drain makes what is sent not be kept.
func (d *fake) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.discard = true
}

// full sets how many frames Send takes before EAGAIN; -1 is all.
func (d *fake) full(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

func (d *fake) Queues() int    { return 1 }
func (d *fake) FD(int) int     { return d.fd }
func (d *fake) SendFD(int) int { return d.fd }
func (d *fake) Offloads() bool { return d.offloads }

func (d *fake) Missed() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.missed
}

func (d *fake) Recv(_ int, b *frame.Batch, limit int) (int, unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse()
	for b.N = 0; b.N < limit; b.N++ {
		if d.next == len(d.in) {
			if !d.repeat {
				break
			}
			d.next = 0
		}
		p := &d.in[d.next]
		d.next++
		f := b.Frames[b.N]
		f.Set(p.data)
		f.Tag, f.Offload, f.Own = p.tag, p.offload, p.own
	}
	if b.N == 0 {
		unix.Read(d.fd, d.counter[:])
		return 0, unix.EAGAIN
	}
	return b.N, 0
}

func (d *fake) Send(_ int, v *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse()
	if d.errno != 0 {
		return 0, d.errno
	}
	v.Gather(out)
	for i, o := range out {
		if d.room == 0 {
			return i, unix.EAGAIN
		}
		d.room = max(d.room-1, -1)
		if !d.discard {
			d.sent = append(d.sent, packet{bytes.Clone(o.F.Bytes()), o.Tag, o.F.Offload, false})
		}
	}
	return len(out), 0
}

func (d *fake) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return unix.Close(d.fd)
}

// inUse panics if the device was closed: nobody may use it any more. Call it with mu
// held.
func (d *fake) inUse() {
	if d.closed {
		panic("a device that is closed is used")
	}
}

// take returns what was sent since the last call.
func (d *fake) take() []packet {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sent
	d.sent = nil
	return s
}

// mac returns a unicast address.
func mac(n byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, n} }

var broadcast = [6]byte{255, 255, 255, 255, 255, 255}

// eth makes a frame with a payload of n bytes.
func eth(dst, src [6]byte, n int) packet {
	b := append(dst[:], src[:]...)
	b = append(b, 0x88, 0xb5) // local experimental EtherType
	return packet{data: append(b, make([]byte, n)...)}
}

// bench is a switch with one worker and one bridge, driven by hand: nothing is
// received until run.
type bench struct {
	*Switch
	t    testing.TB
	devs map[string]*fake
}

func newBench(t testing.TB, o Options) *bench {
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Buffers == 0 {
		o.Buffers = DefaultBuffers
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Switch: s, t: t, devs: map[string]*fake{}}
	t.Cleanup(s.Close)
	b.must(s.AddBridge("br0", BridgeConfig{FDB: fdb.DefaultLimits()}))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// port adds a port with a fake device that is up.
func (b *bench) port(bridge, name string, c PortConfig) *fake {
	b.t.Helper()
	d := newFake(b.t)
	b.must(b.AddPort(bridge, name, c))
	b.must(b.Attach(name, d, true, 1500))
	b.devs[name] = d
	return d
}

// run receives all that waits, on the workers' own threads, and returns when it
// is forwarded.
func (b *bench) run() {
	for again := true; again; {
		again = false
		for _, w := range b.workers {
			w.call(func(w *worker) {
				for i := range w.slots {
					if q := w.slots[i].rx; q != nil && w.receive(q) {
						again = true
					}
				}
			})
		}
	}
}

// balanced fails the test unless a bridge's counters add up.
func (b *bench) balanced(bridge string) BridgeCounters {
	b.t.Helper()
	st, err := b.Bridge(bridge)
	b.must(err)
	c := st.Counters
	if in, out := c.Received+c.FloodCopies+c.MirrorCopies+c.SplitCopies+c.Answers, c.Sent+c.Dropped; in != out {
		b.t.Fatalf("bridge %s: received %d + flood %d + mirror %d + split %d + answers %d = %d, sent %d + dropped %d = %d",
			bridge, c.Received, c.FloodCopies, c.MirrorCopies, c.SplitCopies, c.Answers, in, c.Sent, c.Dropped, out)
	}
	return c
}

// drops returns how often a port met a reason.
func (b *bench) drops(bridge, port string, r Reason) uint64 {
	b.t.Helper()
	st, err := b.Bridge(bridge)
	b.must(err)
	for _, p := range st.Ports {
		if p.Name == port {
			return p.Counters.Drops[r].Count
		}
	}
	b.t.Fatalf("bridge %s has no port %s", bridge, port)
	return 0
}

// free returns how many frame buffers the only worker has left.
func (b *bench) free() (n int) {
	b.workers[0].call(func(w *worker) { n = w.pool.Free() })
	return n
}
