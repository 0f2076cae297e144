package tunnel

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// peer is a remote address: an IPv4 one in its IPv6-mapped form, so that both
// families have one table. The zone of a link-local address is not part of it.
type peer struct{ hi, lo uint64 }

const mappedIPv4 = 0xffff << 32 // ::ffff:0:0, the upper half of peer.lo

func peerOf(a netip.Addr) peer {
	b := a.As16()
	return peer{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is the inverse of peerOf.
func (p peer) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.hi)
	binary.BigEndian.PutUint64(b[8:], p.lo)
	return netip.AddrFrom16(b).Unmap()
}

// demux finds a port by remote address and key: an open-addressing hash table of
// pointers that is read without a lock. It is never more than half full, so a
// look-up takes two probes or so whatever the number of ports: 10,000 cost what
// one costs, but for the cache.
//
// Thread-safety: find may be called from anywhere, at any time; it may find a
// port for a moment after remove. add and remove take a lock.
type demux struct {
	table atomic.Pointer[demuxTable]

	mu   sync.Mutex
	live int
}

type demuxTable struct {
	seed  uint64
	mask  uint64
	used  int // slots that are not nil: ports and tombstones; under demux.mu
	slots []atomic.Pointer[Port]
}

// removed is a tombstone: it matches no peer, and the search goes on behind it.
var removed = &Port{peer: peer{^uint64(0), ^uint64(0)}}

const minDemux = 16 // slots; a power of two

func newDemuxTable(ports int) *demuxTable {
	n := minDemux
	for n < 4*ports {
		n *= 2
	}
	return &demuxTable{seed: rand.Uint64(), mask: uint64(n - 1), slots: make([]atomic.Pointer[Port], n)}
}

// hash mixes by 128-bit multiplication, as wyhash does.
func (t *demuxTable) hash(r peer, key uint32) uint64 {
	hi, lo := bits.Mul64(r.hi^t.seed^0xa0761d6478bd642f, r.lo^uint64(key)*0x9e3779b97f4a7c15^0xe7037ed1a0b428db)
	hi, lo = bits.Mul64(hi^t.seed, lo^0x8ebc6af09c88c6e3)
	return hi ^ lo
}

// find returns the port of a remote address and a key, or nil.
func (d *demux) find(r peer, key uint32) *Port {
	t := d.table.Load()
	if t == nil {
		return nil
	}
	for i := t.hash(r, key); ; i++ {
		p := t.slots[i&t.mask].Load()
		if p == nil || p.peer == r && p.inKey == key {
			if p == removed {
				return nil // a frame that claims to come from ff…ff
			}
			return p
		}
	}
}

// add puts p into the table, and reports false if one with its remote address and
// key is there.
func (d *demux) add(p *Port) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(p.peer, p.inKey) != nil {
		return false
	}
	t := d.table.Load()
	if t == nil || 2*(t.used+1) > len(t.slots) {
		t = d.rebuildLocked()
	}
	d.live++
	t.insert(p)
	return true
}

// insert puts p into the first free slot. It never reuses a tombstone, so that
// what a reader passes on its way never changes but to a tombstone.
func (t *demuxTable) insert(p *Port) {
	i := t.hash(p.peer, p.inKey)
	for t.slots[i&t.mask].Load() != nil {
		i++
	}
	t.slots[i&t.mask].Store(p)
	t.used++
}

// rebuildLocked makes a new table without tombstones, with room for as many ports
// again: what it costs, the additions that follow pay for.
func (d *demux) rebuildLocked() *demuxTable {
	old := d.table.Load()
	t := newDemuxTable(d.live + 1)
	if old != nil {
		for i := range old.slots {
			if p := old.slots[i].Load(); p != nil && p != removed {
				t.insert(p)
			}
		}
	}
	d.table.Store(t)
	return t
}

// remove takes p out, if it is there.
func (d *demux) remove(p *Port) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table.Load()
	if t == nil {
		return
	}
	for i := t.hash(p.peer, p.inKey); ; i++ {
		switch t.slots[i&t.mask].Load() {
		case nil:
			return
		case p:
			t.slots[i&t.mask].Store(removed)
			d.live--
			return
		}
	}
}
