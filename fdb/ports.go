package fdb

// portCounts knows how many entries each port has, and how many of learned ones
// the port with the most has. Thread-safety: FDB.mu.
type portCounts struct {
	ports []portCount // by port number
	heap  []Port      // each port that ever had a learned entry; the fullest first
}

type portCount struct {
	learned, static uint32
	place           uint32 // in the heap, from 1; 0 is not in it
}

// most is the number of learned entries of the port that has most.
func (c *portCounts) most() uint32 {
	if len(c.heap) == 0 {
		return 0
	}
	return c.ports[c.heap[0]].learned
}

func (c *portCounts) of(p Port) portCount {
	if int(p) < len(c.ports) {
		return c.ports[p]
	}
	return portCount{}
}

func (c *portCounts) add(v value) {
	p := v.port()
	if int(p) >= len(c.ports) {
		more := make([]portCount, max(64, 2*len(c.ports), int(p)+1))
		copy(more, c.ports)
		c.ports = more
	}
	n := &c.ports[p]
	if v.static() {
		n.static++
		return
	}
	n.learned++
	if n.place == 0 {
		c.heap = append(c.heap, p)
		n.place = uint32(len(c.heap))
	}
	c.up(int(n.place) - 1)
}

func (c *portCounts) sub(v value) {
	n := &c.ports[v.port()]
	if v.static() {
		n.static--
		return
	}
	n.learned--
	c.down(int(n.place) - 1)
}

func (c *portCounts) learned(i int) uint32 { return c.ports[c.heap[i]].learned }

func (c *portCounts) swap(i, j int) {
	c.heap[i], c.heap[j] = c.heap[j], c.heap[i]
	c.ports[c.heap[i]].place = uint32(i) + 1
	c.ports[c.heap[j]].place = uint32(j) + 1
}

func (c *portCounts) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if c.learned(parent) >= c.learned(i) {
			return
		}
		c.swap(i, parent)
		i = parent
	}
}

func (c *portCounts) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(c.heap) {
			return
		}
		if r := child + 1; r < len(c.heap) && c.learned(r) > c.learned(child) {
			child = r
		}
		if c.learned(i) >= c.learned(child) {
			return
		}
		c.swap(i, child)
		i = child
	}
}

// portSet is a set of ports, one bit each.
type portSet []uint64

func makePortSet(ports []Port) (s portSet) {
	for _, p := range ports {
		if more := int(p/64) + 1 - len(s); more > 0 {
			s = append(s, make([]uint64, more)...)
		}
		s[p/64] |= 1 << (p % 64)
	}
	return s
}

func (s portSet) has(p Port) bool { return int(p/64) < len(s) && s[p/64]&(1<<(p%64)) != 0 }
