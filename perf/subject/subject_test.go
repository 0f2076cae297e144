package subject_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/subject"
)

// subjects builds the programs once a test, and returns who there is.
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

// can skips what is not installed, but not under CI, and returns whether the subject
// says that it can do a topology.
func can(t *testing.T, s subject.Subject, topology subject.Topology) bool {
	t.Helper()
	err := s.Can(topology)
	if err != nil && strings.Contains(err.Error(), "not installed") {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v, and CI=true allows no skipping", err)
		}
		t.Skip(err)
	}
	return err == nil
}

// TestUp stands each subject up in each kind of topology, and uses it.
func TestUp(t *testing.T) {
	all := subjects(t)
	for _, topology := range []subject.Topology{
		{Containers: 2},
		{Containers: 5, Idle: 20, TableSize: 100_000},
		{Containers: 2, Tunnel: "vxlan", Offloads: true},
		{Containers: 2, Tunnel: "vxlan"},
		{Containers: 2, Tunnel: "gre"},
	} {
		for _, s := range all {
			t.Run(fmt.Sprintf("%s/%+v", s.Name, topology), func(t *testing.T) {
				if !can(t, s, topology) {
					t.Skip(s.Can(topology))
				}
				use(t, s, topology)
			})
		}
	}
}

func use(t *testing.T, s subject.Subject, topology subject.Topology) {
	outside := &lab.Standalone{Log: t.Output()}
	var b *subject.Bed
	start := time.Now()
	err := outside.Try(func() (err error) {
		b, err = s.Up(lab.New(outside), topology)
		return err
	})
	if err != nil {
		outside.Close()
		t.Fatal(err)
	}
	up := time.Since(start)
	if err := outside.Try(func() error {
		if err := lab.Ping(b.Containers[0], b.Containers[1]); err != nil {
			return err
		}
		r, err := lab.Iperf3(b.Containers[0], b.Containers[1], 1)
		n, err2 := b.MACs()
		t.Logf("%.2f Gbit/s, %d retr, %v, MACs %d %v CPU %v Mem %v", r.BitsPerSecond/1e9, r.Retransmits, err, n, err2, b.CPU(), b.MemoryOf())
		return nil
	}); err != nil {
		t.Error(err)
	}
	start = time.Now()
	b.Close()
	t.Logf("up %v, down %v", up, time.Since(start))
	if err := outside.Close(); err != nil {
		t.Error(err)
	}
	if left := lab.Leftovers(); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
