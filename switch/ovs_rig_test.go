package vswitch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// ovsRig is both switches with their containers.
type ovsRig struct {
	t      *testing.T
	ours   *ovsSide
	ovs    *ovsSide
	client *api.Client
	o      *lab.OVS
	appctl *unixctl
	before *ovsConfig // nil: none yet
	next   uint32     // number of the next frame
}

// ovsSide is one switch's containers: sockets that send, and goroutines that record
// what comes out.
type ovsSide struct {
	name  string
	conns []*lab.Conn // by port
	marks chan uint32 // that came to the sink

	mu  sync.Mutex
	got map[uint32][]ovsOutput // by case
	err error                  // of a receiver
}

func newOVSRig(t *testing.T) *ovsRig {
	l := lab.New(t)
	onOneCPU(t)
	r := &ovsRig{t: t}
	for _, name := range []string{"ours", "ovs"} {
		h := l.Host(name)
		veths := []string{}
		s := &ovsSide{name: name, marks: make(chan uint32, 1<<12), got: map[uint32][]ovsOutput{}}
		for i := range ovsPorts + 1 {
			c := h.Container(strings.TrimPrefix(portName(i), "veth-"))
			veths = append(veths, c.Veth)
			s.conns = append(s.conns, c.Conn())
		}
		if name == "ours" {
			d := h.Daemon(lab.DaemonOptions{})
			d.Ctl("add-br", "br0")
			for _, veth := range veths {
				d.Ctl("add-port", "br0", veth)
			}
			r.ours, r.client = s, d.Client()
			l.Cleanup(r.client.Close)
		} else {
			r.ovs, r.o = s, l.OVS(h)
			r.o.AddBridge("br0")
			for _, veth := range veths {
				r.o.AddPort("br0", veth)
			}
		}
		s.record(l)
	}
	sockets, err := filepath.Glob(l.Dir() + "/o*/vswitchd.ctl")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("control sockets of ovs-vswitchd: %q, %v", sockets, err)
	}
	if r.appctl, err = dialUnixctl(sockets[0]); err != nil {
		t.Fatal(err)
	}
	l.Cleanup(func() { r.appctl.conn.Close() })
	return r
}

// onOneCPU keeps the test's goroutine on one CPU: what it sends goes through that
// CPU's backlog, so that no frame overtakes another before the switch has it.
func onOneCPU(t *testing.T) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	})
}

// record starts the goroutines that take what comes out.
func (s *ovsSide) record(l *lab.Lab) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	for port, conn := range s.conns {
		running.Go(func() { // ended by stop
			for {
				b, err := conn.Recv(100 * time.Millisecond)
				select {
				case <-stop:
					return
				default:
				}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					continue
				}
				s.mu.Lock()
				if err != nil {
					s.err = err
					s.mu.Unlock()
					return
				}
				if id, ok := number(b, caseMagic); ok {
					s.got[id] = append(s.got[id], ovsOutput{port, b})
				}
				s.mu.Unlock()
				if id, ok := number(b, markMagic); ok && port == sink {
					s.marks <- id
				}
			}
		})
	}
	l.Cleanup(func() {
		close(stop)
		running.Wait()
	})
}

// outputs returns what came of a case so far.
func (s *ovsSide) outputs(id uint32) []ovsOutput {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got[id])
}

// send gives both switches a frame and returns when both are through with it.
//
// The barrier: behind the frame goes a broadcast by the same port, in a VLAN that
// the port carries. A port's frames stay in order, so when that has come to the
// sink, the frame has been learned from and looked up. A port that a mirror has
// taken for its output needs none: nothing is learned from it.
//
// Open vSwitch decides once for each kind of frame and follows that until its
// revalidators look again, half a second later or so. To ask it what it thinks
// now, its datapath's flows are deleted before each frame.
func (r *ovsRig) send(c *ovsConfig, in int, f ovsFrame) *ovsCase {
	r.t.Helper()
	lc := &ovsCase{r.next, c, in, f}
	r.next++
	r.unixctl("revalidator/purge")
	_, tags := c.ports[in].vlan()
	mark := ovsFrame{
		dst: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src: [6]byte{2, 0xaa, 0, 0, 0, byte(in)},
		tags: tags, fill: 40,
	}
	for _, s := range []*ovsSide{r.ours, r.ovs} {
		if err := s.conns[in].Send(f.bytes(lc.id)); err != nil {
			r.t.Fatal(err)
		}
		if !c.reserved(in) {
			if err := s.conns[in].Send(mark.build(markMagic, lc.id)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for _, s := range []*ovsSide{r.ours, r.ovs} {
		if !c.reserved(in) {
			r.await(s, lc)
		}
	}
	return lc
}

// await returns when the case's mark has come to the side's sink.
func (r *ovsRig) await(s *ovsSide, c *ovsCase) {
	r.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		select {
		case id := <-s.marks:
			if id == c.id { // else a mirror's copy of an earlier one
				return
			}
		case <-limit.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			r.t.Fatalf("%s: a broadcast in by %s never came to the sink (receivers: %v)\n%v",
				s.name, portName(c.in), s.err, c.config)
		}
	}
}

// configure brings both switches from one configuration to the next, and empties
// their MAC tables.
func (r *ovsRig) configure(c *ovsConfig) {
	r.t.Helper()
	var ops []config.Op
	vsctl := []string{"set", "bridge", "br0", "other_config:forward-bpdu=" + strconv.FormatBool(c.forwardBPDU),
		"--", "clear", "bridge", "br0", "mirrors"}
	if old := r.before; old != nil {
		for i := range old.mirrors {
			ops = append(ops, config.Op{Op: "del-mirror", Bridge: "br0", Mirror: fmt.Sprintf("m%d", i)})
		}
		for _, s := range old.statics {
			mac := net.HardwareAddr(s.mac[:]).String()
			ops = append(ops, config.Op{Op: "del-fdb", Bridge: "br0", MAC: mac, VLAN: s.vlan})
			r.unixctl("fdb/del", "br0", strconv.Itoa(s.vlan), mac)
		}
	}
	ops = append(ops, config.Op{Op: "set-bridge", Bridge: "br0", Options: config.Options{"forward-bpdu": strconv.FormatBool(c.forwardBPDU)}})
	for i, p := range c.ports {
		options := config.Options{"vlan_mode": "", "tag": "", "trunks": ""}
		vsctl = append(vsctl, "--", "clear", "port", portName(i), "vlan_mode", "tag", "trunks")
		for _, setting := range p.settings() {
			name, value, _ := strings.Cut(setting, "=")
			options[name] = value
			vsctl = append(vsctl, "--", "set", "port", portName(i), setting)
		}
		ops = append(ops, config.Op{Op: "set-port", Bridge: "br0", Port: portName(i), Options: options})
	}
	for _, s := range c.statics {
		ops = append(ops, config.Op{Op: "add-fdb", Bridge: "br0", MAC: net.HardwareAddr(s.mac[:]).String(), Port: portName(s.port), VLAN: s.vlan})
	}
	for i, m := range c.mirrors {
		name := fmt.Sprintf("m%d", i)
		op, args := m.commands(name)
		ops = append(ops, op)
		vsctl = append(append(vsctl, "--"), args...)
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := r.client.Edit(ctx, api.Edit{Ops: ops}); err != nil {
		r.t.Fatalf("%v\n%v", err, c)
	}
	if _, err := r.client.FDBFlush(ctx, api.FDBQuery{Bridge: "br0", VLAN: -1}); err != nil {
		r.t.Fatal(err)
	}
	r.o.Vsctl(vsctl...)
	r.unixctl("fdb/flush", "br0")
	for _, s := range c.statics {
		r.unixctl("fdb/add", "br0", portName(s.port), strconv.Itoa(s.vlan), net.HardwareAddr(s.mac[:]).String())
	}
	r.before = c
}

// commands returns what makes the mirror in either switch.
func (m ovsMirror) commands(name string) (op config.Op, vsctl []string) {
	options := config.Options{}
	var refs []string // Open vSwitch wants ports by their UUID
	ref := func(port int) string {
		id := fmt.Sprintf("@%s%d", name, port)
		if !slices.Contains(refs, id) {
			refs = append(refs, id)
			vsctl = append(vsctl, "--id="+id, "get", "port", portName(port), "--")
		}
		return id
	}
	create := []string{"--id=@" + name, "create", "mirror", "name=" + name}
	both := func(key, ours, ovs string) {
		options[key] = ours
		create = append(create, key+"="+ovs)
	}
	if m.all {
		both("select_all", "true", "true")
	}
	if len(m.src) > 0 {
		both("select_src_port", list(m.src, portName), list(m.src, ref))
	}
	if len(m.dst) > 0 {
		both("select_dst_port", list(m.dst, portName), list(m.dst, ref))
	}
	if len(m.vlans) > 0 {
		both("select_vlan", list(m.vlans, strconv.Itoa), list(m.vlans, strconv.Itoa))
	}
	if m.outPort >= 0 {
		both("output_port", portName(m.outPort), ref(m.outPort))
	}
	if m.outVLAN >= 0 {
		both("output_vlan", strconv.Itoa(m.outVLAN), strconv.Itoa(m.outVLAN))
	}
	vsctl = append(append(vsctl, create...), "--", "add", "bridge", "br0", "mirrors", "@"+name)
	return config.Op{Op: "add-mirror", Bridge: "br0", Mirror: name, Options: options}, vsctl
}

// checkLosses fails the test when a socket of it could not keep a frame.
func (r *ovsRig) checkLosses() {
	for _, s := range []*ovsSide{r.ours, r.ovs} {
		for port, conn := range s.conns {
			if drops, err := conn.Drops(); err != nil || drops != 0 {
				r.t.Errorf("%s: the socket behind %s lost %d frames, %v", s.name, portName(port), drops, err)
			}
		}
		if s.err != nil {
			r.t.Errorf("%s: %v", s.name, s.err)
		}
	}
}

// unixctl is what ovs-appctl speaks, JSON-RPC (ovs-appctl(8), unixctl.c): a
// process for each frame would be most of the test's time.
type unixctl struct {
	conn net.Conn
	enc  *json.Encoder
	dec  *json.Decoder
	id   int
}

func dialUnixctl(path string) (*unixctl, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &unixctl{conn: conn, enc: json.NewEncoder(conn), dec: json.NewDecoder(conn)}, nil
}

func (r *ovsRig) unixctl(method string, params ...string) {
	r.t.Helper()
	if params == nil {
		params = []string{}
	}
	u := r.appctl
	u.id++
	u.conn.SetDeadline(time.Now().Add(30 * time.Second))
	err := u.enc.Encode(map[string]any{"id": u.id, "method": method, "params": params})
	var answer struct {
		ID            int
		Result, Error any
	}
	if err == nil {
		err = u.dec.Decode(&answer)
	}
	if err == nil && (answer.ID != u.id || answer.Error != nil) {
		err = fmt.Errorf("answer %+v", answer)
	}
	if err != nil {
		r.t.Fatalf("ovs-vswitchd: %s %q: %v", method, params, err)
	}
}
