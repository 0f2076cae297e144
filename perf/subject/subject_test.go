package subject_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// TestSubjects stands each up in each kind of topology, and does all with it that a
// Bed can do there.
func TestSubjects(t *testing.T) {
	lab.New(t).Close() // skips without root
	all := subjects(t)
	for _, test := range []struct {
		topology subject.Topology
		more     func(t *testing.T, s subject.Subject, b *subject.Bed) error
	}{
		{subject.Topology{Containers: 2}, streamAndPort},
		{subject.Topology{Containers: 5, Idle: 100}, nil},
		{subject.Topology{Containers: 2, TableSize: 100_000}, table},
		{subject.Topology{Containers: 2, Tunnel: "vxlan"}, tunnels},
		{subject.Topology{Containers: 2, Tunnel: "gre", Offloads: true}, nil},
	} {
		t.Run(fmt.Sprintf("%+v", test.topology), func(t *testing.T) {
			each(t, all, test.topology, func(t *testing.T, s subject.Subject, b *subject.Bed) error {
				err := used(t, s, test.topology, b)
				if err == nil && test.more != nil {
					err = test.more(t, s, b)
				}
				return err
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
	if cpu < 100*time.Microsecond || cpu > time.Minute {
		t.Errorf("%v of CPU for 8 MiB", cpu)
	}
	if memory < 100<<10 || memory > 1<<30 {
		t.Errorf("%d bytes of memory", memory)
	}
	byName := b.MemoryOf()
	if strings.HasPrefix(s.Name, "ovs") && (byName["ovsdb-server"] == 0 || byName["ovs-vswitchd"] < memory/2) {
		t.Errorf("memory %d, and by process %v", memory, byName)
	}
	return nil
}

// streamAndPort has it carry a stream for a second, and adds a container.
func streamAndPort(t *testing.T, s subject.Subject, b *subject.Bed) error {
	r, err := lab.Iperf3(b.Containers[0], b.Containers[1], 1)
	if err != nil {
		return err
	}
	if r.BitsPerSecond < 10e6 {
		t.Errorf("TCP crawls: %.1f Mbit/s", r.BitsPerSecond/1e6)
	}
	c, err := b.Spare()
	if err != nil {
		return err
	}
	if err := b.AddPort(c.Veth); err != nil {
		return err
	}
	return lab.Ping(b.Containers[0], c)
}

// table sends from many MACs, and asks for their number.
func table(t *testing.T, s subject.Subject, b *subject.Bed) error {
	const stations = 10_000 // more than most have room for by default
	before, err := b.MACs()
	if err != nil {
		return err
	}
	conn := b.Containers[0].Conn()
	frame := make([]byte, 60)
	copy(frame, []byte{0x02, 0xff, 0, 0, 0, 1, 0x02, 0xaa})
	frame[12], frame[13] = 0x88, 0xb5 // an EtherType for experiments
	return lab.Wait(10*time.Second, func() error {
		for i := range stations { // again where frames were lost
			binary.BigEndian.PutUint32(frame[8:], uint32(i))
			if err := conn.Send(frame); err != nil {
				return err
			}
		}
		n, err := b.MACs()
		if s.Name == "vde" {
			if !errors.Is(err, subject.ErrCannot) {
				return fmt.Errorf("it tells of %d MACs now: %w", n, err)
			}
			return nil
		}
		if err == nil && n-before < stations {
			err = fmt.Errorf("%d MACs in the table after %d more", n, stations)
		}
		return err
	})
}

// tunnels adds tunnels beside the one that is in use, and looks at the underlay.
func tunnels(t *testing.T, s subject.Subject, b *subject.Bed) error {
	features := b.Hosts[0].MustExec("ethtool", "-k", "eth0")
	for _, off := range []string{"tcp-segmentation-offload", "generic-segmentation-offload", "tx-udp_tnl-segmentation", "tx-udp-segmentation"} {
		if !strings.Contains(features, off+": off") {
			t.Errorf("a plain NIC with %s", off)
		}
	}
	for range 2 {
		if err := b.AddTunnels(300); errors.Is(err, subject.ErrCannot) != (s.Name == "bridge") {
			return fmt.Errorf("add tunnels: %w", err)
		} else if err != nil && s.Name != "bridge" {
			return err
		}
	}
	return lab.Ping(b.Containers[0], b.Containers[1])
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
