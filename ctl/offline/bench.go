package offline

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/ctl/translate"
	"vswitch/frame"
	"vswitch/mesh"
	vswitch "vswitch/switch"
)

// Link is what a document does not say of a port's interface.
type Link struct {
	MTU int   `yaml:"mtu,omitempty"` // bytes of an IP packet; 0: see defaultMTU
	Up  *bool `yaml:"up,omitempty"`  // nil: see isUp
}

// defaultMTU is that of an interface, and of a tunnel's path, of which nothing is said.
const defaultMTU = 1500

// bench is a switch of a document, with one worker and devices of memory.
//
// Thread-safety: for one goroutine.
type bench struct {
	sw    *vswitch.Switch
	ports map[string]portOf
	names []string // of bridges
	sent  sentFrames
	drops map[Drop]uint64 // counted so far
}

type portOf struct {
	bridge string
	mtu    int
}

// newBench builds the switch. The document must be valid.
func newBench(doc config.Document, links map[string]Link) (*bench, error) {
	sw, err := vswitch.New(vswitch.Options{Workers: 1, Buffers: vswitch.DefaultBuffers})
	if err != nil {
		return nil, err
	}
	b := &bench{sw: sw, ports: map[string]portOf{}, drops: map[Drop]uint64{}}
	doc = mesh.Expand(doc)
	for i := range doc.Bridges {
		if err := b.bridge(&doc.Bridges[i], links); err != nil {
			sw.Close()
			return nil, err
		}
	}
	for name := range links {
		if _, ok := b.ports[name]; !ok {
			sw.Close()
			return nil, fmt.Errorf("ports: the document has no port %s", name)
		}
	}
	return b, nil
}

func (b *bench) close() { b.sw.Close() }

// bridge makes a bridge with its ports, mirrors and static MACs.
func (b *bench) bridge(br *config.Bridge, links map[string]Link) error {
	c := translate.Bridge(br)
	c.FDB.FlapLimit, c.FDB.FlapHold = 0, 0 // moves a second: see the package's comment
	if err := b.sw.AddBridge(br.Name, c); err != nil {
		return err
	}
	b.names = append(b.names, br.Name)
	ports := append([]config.Port{br.Local()}, br.Ports...)
	for _, p := range ports {
		if err := b.port(br.Name, p, links[p.Name]); err != nil {
			return err
		}
	}
	var mirrors []vswitch.MirrorConfig
	for _, m := range br.Mirrors {
		mirrors = append(mirrors, translate.Mirror(m))
	}
	if err := b.sw.SetMirrors(br.Name, mirrors); err != nil {
		return err
	}
	return b.sw.SetStatic(br.Name, translate.Statics(br))
}

func (b *bench) port(bridge string, p config.Port, l Link) error {
	c := translate.Port(p)
	c.Storm = vswitch.StormLimits{}
	if err := b.sw.AddPort(bridge, p.Name, c); err != nil {
		return err
	}
	mtu := mtuOf(p, l)
	b.ports[p.Name] = portOf{bridge, mtu}
	if c.Patch {
		return nil
	}
	if o, ok := p.Tunnel(); ok && !o.DF {
		mtu = 0 // the host may fragment: no limit
	}
	return b.sw.Attach(p.Name, &memory{p.Name, b.sent.note}, isUp(p, l), mtu)
}

// isUp tells whether a port's interface is up where nothing is said: as in the daemon a
// local or internal port without an address is not.
func isUp(p config.Port, l Link) bool {
	if l.Up != nil {
		return *l.Up
	}
	switch p.Object() {
	case config.LocalPort, config.InternalPort:
		return p.Options.IsSet("ip")
	}
	return true
}

// mtuOf is the largest IP packet that goes through a port.
func mtuOf(p config.Port, l Link) int {
	if l.MTU > 0 {
		return l.MTU
	}
	if o, ok := p.Tunnel(); ok {
		return defaultMTU - overhead(o)
	}
	if p.Options.IsSet("mtu") {
		return p.Options.Int("mtu")
	}
	return defaultMTU
}

// overhead is what a tunnel adds to an IP packet: outer IP, UDP, its own header, and
// the inner Ethernet header. A host name is taken for an IPv4 host's.
func overhead(t config.Tunnel) int {
	n := frame.EthLen + frame.IPv4MinLen
	if strings.Contains(t.Remote, ":") {
		n += frame.IPv6Len - frame.IPv4MinLen
	}
	if t.Type != config.GREPort {
		return n + frame.UDPLen + 8 // RFC 7348 section 5, RFC 8926 section 3.4
	}
	n += 4 // RFC 2784 section 2.1, and 4 for each field that may follow (RFC 2890)
	for _, has := range []bool{t.OutKey != 0, t.CsumSet && t.Csum, t.Seq} {
		if has {
			n += 4
		}
	}
	return n
}

// put carries one frame through the switch, and tells what became of it.
func (b *bench) put(port string, data []byte, o frame.Offload) (out []Out, drops []Drop, err error) {
	b.sent.take()
	if err := b.sw.Inject(port, []vswitch.Injected{{Data: data, Offload: o}}); err != nil {
		return nil, nil, err
	}
	drops, err = b.dropped()
	return b.sent.take(), drops, err
}

// dropped returns what was counted as dropped since the last call.
func (b *bench) dropped() (all []Drop, err error) {
	for _, name := range b.names {
		st, err := b.sw.Bridge(name)
		if err != nil {
			return nil, err
		}
		for _, p := range st.Ports {
			for _, r := range vswitch.Reasons() {
				k := Drop{Port: p.Name, Reason: r.String()}
				n := p.Counters.Drops[r].Count
				for range n - b.drops[k] {
					all = append(all, k)
				}
				if n > 0 {
					b.drops[k] = n
				}
			}
		}
	}
	return all, nil
}

// macs returns what the switch learned.
func (b *bench) macs() (all []MAC, err error) {
	for _, name := range b.names {
		entries, err := b.sw.FDB(name, func(e vswitch.FDBEntry) bool { return !e.Static })
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			all = append(all, MAC{Bridge: name, VLAN: int(e.VLAN), MAC: net.HardwareAddr(e.MAC[:]).String(), Port: e.Port})
		}
	}
	slices.SortFunc(all, MAC.compare)
	return all, nil
}

// sentFrames is what left by all ports since the last take.
//
// Thread-safety: safe for concurrent use.
type sentFrames struct {
	mu   sync.Mutex
	all  []Out
	look func(port string, f *frame.Out) // for tests: sees each frame; nil: nobody does
}

// note is what a device calls for each frame that it is given.
func (s *sentFrames) note(port string, f *frame.Out) {
	o := Out{Port: port, Answer: f.Own}
	if t := f.Tag; t.Present() {
		vid := int(t.VID())
		o.VLAN, o.PCP = &vid, int(t.TCI>>13)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.look != nil {
		s.look(port, f)
	}
	s.all = append(s.all, o)
}

// take returns them by port, and of one port in order; equal ones that follow each other
// are one that counts.
func (s *sentFrames) take() (all []Out) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.all, func(a, b Out) int { return strings.Compare(a.Port, b.Port) })
	for _, o := range s.all {
		if n := len(all); n > 0 && all[n-1].same(o) {
			all[n-1].Count = max(all[n-1].Count, 1) + 1
			continue
		}
		all = append(all, o)
	}
	s.all = nil
	return all
}

// memory is a device that tells what it is given, and keeps nothing.
//
// Thread-safety: as vswitch.Device asks for.
type memory struct {
	port string
	note func(port string, f *frame.Out)
}

func (m *memory) Queues() int                                   { return 0 } // frames come by Inject
func (m *memory) FD(int) int                                    { return -1 }
func (m *memory) Recv(int, *frame.Batch, int) (int, unix.Errno) { return 0, unix.EAGAIN }
func (m *memory) SendFD(int) int                                { return -1 }
func (m *memory) Offloads() bool                                { return true }
func (m *memory) Missed() uint64                                { return 0 }
func (m *memory) Close() error                                  { return nil }

func (m *memory) Send(_ int, _ *frame.Vectors, outs []frame.Out) (int, unix.Errno) {
	for i := range outs {
		m.note(m.port, &outs[i])
	}
	return len(outs), 0
}
