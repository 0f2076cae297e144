package subject_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/subject"
)

// subjects builds the programs, and returns whom they and the machine allow.
func subjects(t *testing.T) []subject.Subject {
	t.Helper()
	bin := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", bin+"/", "vswitch/cmd/vswitchd", "vswitch/cmd/vswitchctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return subject.All(bin)
}

// each runs f with each subject that can do the topology, standing on it, outside of
// the test as a command would, and looks for what is left when it has ended. What is
// not installed is skipped, but not under CI.
func each(t *testing.T, all []subject.Subject, topology subject.Topology, f func(t *testing.T, s subject.Subject, b *subject.Bed) error) {
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			if err := s.Can(topology); err != nil {
				if os.Getenv("CI") == "true" && strings.Contains(err.Error(), "not installed") {
					t.Fatalf("%v, and CI=true allows no skipping", err)
				}
				t.Skip(err)
			}
			outside := &lab.Standalone{Log: t.Output()}
			err := outside.Try(func() error {
				b, err := s.Up(lab.New(outside), topology)
				if err != nil {
					return err
				}
				defer b.Close()
				return f(t, s, b)
			})
			if err := errors.Join(err, outside.Close()); err != nil {
				t.Error(err)
			}
			if left := lab.Leftovers(); len(left) > 0 {
				t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// root skips a test that makes namespaces where that cannot be done.
func root(t *testing.T) {
	t.Helper()
	lab.New(t).Close()
}

// TestSubjects stands each up in each kind of topology, and uses it.
func TestSubjects(t *testing.T) {
	root(t)
	all := subjects(t)
	for _, topology := range []subject.Topology{
		{Containers: 2},
		{Containers: 5, Idle: 100, TableSize: 100_000},
		{Containers: 2, Tunnel: "vxlan", Offloads: true},
		{Containers: 2, Tunnel: "vxlan"},
		{Containers: 2, Tunnel: "gre"},
	} {
		t.Run(fmt.Sprintf("%+v", topology), func(t *testing.T) {
			each(t, all, topology, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
				return used(t, s, topology, b)
			})
		})
	}
}

// used sends through a bed, and looks at what it tells of itself.
func used(t *testing.T, s subject.Subject, topology subject.Topology, b *subject.Bed) error {
	if len(b.Containers) != topology.Containers {
		t.Errorf("%d containers, want %d", len(b.Containers), topology.Containers)
	}
	first, last := b.Containers[0], b.Containers[len(b.Containers)-1]
	if err := lab.Ping(first, last); err != nil {
		return err
	}
	cpu := b.CPU()
	for _, way := range [][2]*lab.Container{{first, last}, {last, first}} {
		if err := lab.Transfer(way[0], way[1], 4<<20); err != nil {
			return err
		}
	}
	cpu, memory := b.CPU()-cpu, b.Memory()
	if s.Name == "bridge" {
		if cpu != 0 || memory != 0 || len(b.MemoryOf()) != 0 {
			t.Errorf("the kernel has processes: %v of CPU, %d bytes", cpu, memory)
		}
		return nil
	}
	// A thousandth of what a poor switch would need for 8 MiB, and all of a machine.
	if cpu < 10*time.Microsecond || cpu > time.Minute {
		t.Errorf("%v of CPU for 8 MiB", cpu)
	}
	if memory < 100<<10 || memory > 1<<30 {
		t.Errorf("%d bytes of memory", memory)
	}
	byName := b.MemoryOf()
	if db := byName["ovsdb-server"]; strings.HasPrefix(s.Name, "ovs") && (db == 0 || byName["ovs-vswitchd"] != memory) {
		t.Errorf("memory %d, and by process %v", memory, byName)
	}
	return nil
}

// TestIperf3 has each carry a stream for a second, with what it was set to.
func TestIperf3(t *testing.T) {
	root(t)
	each(t, subjects(t), subject.Topology{Containers: 2}, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
		r, err := lab.Iperf3(b.Containers[0], b.Containers[1], 1)
		if err == nil && r.BitsPerSecond < 10e6 {
			err = fmt.Errorf("TCP crawls: %.1f Mbit/s", r.BitsPerSecond/1e6)
		}
		return err
	})
}

// TestTable sends from many MACs, and asks for their number.
func TestTable(t *testing.T) {
	root(t)
	const stations = 3000
	topology := subject.Topology{Containers: 2, TableSize: 20_000}
	each(t, subjects(t), topology, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
		before, err := b.MACs()
		if err != nil {
			return err
		}
		conn := b.Containers[0].Conn()
		frame := make([]byte, 60)
		copy(frame, []byte{0x02, 0xff, 0, 0, 0, 1, 0x02, 0xaa})
		frame[12], frame[13] = 0x88, 0xb5 // an EtherType for experiments
		send := func() error {
			for i := range stations {
				binary.BigEndian.PutUint32(frame[8:], uint32(i))
				if err := conn.Send(frame); err != nil {
					return err
				}
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
			return nil
		}
		return lab.Wait(10*time.Second, func() error {
			if err := send(); err != nil { // again where frames were lost
				return err
			}
			n, err := b.MACs()
			if err == nil && n-before < stations {
				err = fmt.Errorf("%d MACs in the table after %d more", n, stations)
			}
			return err
		})
	})
}

// TestAddPort adds a container to a switch that runs.
func TestAddPort(t *testing.T) {
	root(t)
	each(t, subjects(t), subject.Topology{Containers: 2}, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
		c, err := b.Spare()
		if err != nil {
			return err
		}
		if err := lab.NoPing(b.Containers[0], c); err != nil {
			return fmt.Errorf("before it is a port: %w", err)
		}
		if err := b.AddPort(c.Veth); err != nil {
			return err
		}
		if err := lab.Ping(b.Containers[0], c); err != nil {
			return err
		}
		if err := b.AddPort("no-such-one"); err == nil && s.Name == "bridge" {
			return errors.New("a port of nothing is no error")
		}
		return nil
	})
}

// TestAddTunnels adds tunnels beside the one that is in use.
func TestAddTunnels(t *testing.T) {
	root(t)
	topology := subject.Topology{Containers: 2, Tunnel: "vxlan"}
	each(t, subjects(t), topology, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
		for range 2 {
			err := b.AddTunnels(300)
			if s.Name == "bridge" {
				if err == nil {
					t.Error("memory of the kernel's tunnels is counted?")
				}
			} else if err != nil {
				return err
			}
		}
		return lab.Ping(b.Containers[0], b.Containers[1])
	})
}

func TestCan(t *testing.T) {
	for _, s := range subject.All(t.TempDir()) {
		if s.Version() == "" || s.Title == "" || s.Notes == "" {
			t.Errorf("%s: version %q, title %q, notes %q", s.Name, s.Version(), s.Title, s.Notes)
		}
		for _, topology := range []subject.Topology{
			{},
			{Containers: 1},
			{Containers: 201},
			{Containers: 2, Idle: 1001},
			{Containers: 2, Tunnel: "ipip"},
			{Containers: 2, TableSize: 2_000_000},
		} {
			if s.Can(topology) == nil {
				t.Errorf("%s says that it can do %+v", s.Name, topology)
			}
		}
		good := subject.Topology{Containers: 2}
		if err := s.Can(good); s.Name == "vswitch" && (err == nil || !strings.Contains(err.Error(), "vswitchd")) {
			t.Errorf("there is nothing to run, and %s says %v", s.Name, err)
		}
	}
}
