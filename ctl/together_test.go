package ctl_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestManyPortsWaitTogether: the kernel's grace periods, which a packet socket costs when
// it goes, overlap for ports that go together. One after the other, they would take
// two and a half seconds here.
//
//	p0   ─ v0   ┐
//	…           ┼ br0      all in host a
//	p199 ─ v199 ┘
func TestManyPortsWaitTogether(t *testing.T) {
	const (
		count  = 200
		adding = 1500 * time.Millisecond // 0.3 s are measured
		going  = 2 * time.Second         // 0.5 s are measured

		tolerance = 10 // descriptors: of a request, of a look at an interface
	)
	if raced {
		t.Skip("a daemon with the race detector has other figures")
	}
	l := lab.New(t)
	h := l.Host("a")
	h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	batch := func(lines func(i int) string) {
		t.Helper()
		var all strings.Builder
		for i := range count {
			all.WriteString(lines(i))
		}
		h.MustExec("ip", "-batch", write(t, l, all.String()))
	}
	batch(func(i int) string {
		return fmt.Sprintf("link add v%[1]d type veth peer name p%[1]d\nlink set p%[1]d up\nlink set v%[1]d group 7\n", i)
	})
	d := h.Daemon(lab.DaemonOptions{})
	descriptors := func(d *lab.Daemon) int {
		t.Helper()
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Process().PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	var doc strings.Builder
	doc.WriteString("bridges:\n- name: br0\n")
	none := write(t, l, doc.String())
	doc.WriteString("  ports:\n")
	for i := range count {
		fmt.Fprintf(&doc, "  - name: v%d\n", i)
	}
	many := write(t, l, doc.String())
	d.Ctl("apply", "-f", none)
	before := descriptors(d)
	within := func(limit time.Duration, what string, do func()) {
		t.Helper()
		begin := time.Now()
		do()
		if took := time.Since(begin); took > limit {
			t.Errorf("%s took %v, want at most %v", what, took, limit)
		} else {
			t.Logf("%s took %v", what, took)
		}
	}
	apply := func(path string) func() { return func() { d.Ctl("--timeout", "60s", "apply", "-f", path) } }
	within(adding, "adding", apply(many))
	for i := range count {
		if p := mustPort(t, d, fmt.Sprint("v", i)); p.State != api.PortUp {
			t.Fatalf("%+v", p)
		}
	}
	within(going, "removing", apply(none))
	lab.Eventually(t, patient, func() error {
		if n := descriptors(d); n > before+tolerance {
			return fmt.Errorf("%d descriptors are open, %d were", n, before)
		}
		return nil
	})

	// A daemon that may not have them keeps none of the sockets that it had ready.
	d.Ctl("apply", "-f", many)
	other := h.Daemon(lab.DaemonOptions{})
	other.Ctl("apply", "-f", none)
	before = descriptors(other)
	other.Ctl("--timeout", "60s", "apply", "-f", many)
	for i := range count {
		if p := mustPort(t, other, fmt.Sprint("v", i)); p.State != api.PortError {
			t.Fatalf("%+v", p)
		}
	}
	lab.Eventually(t, patient, func() error {
		if n := descriptors(other); n > before+tolerance {
			return fmt.Errorf("%d descriptors are open, %d were", n, before)
		}
		return nil
	})
	other.Stop()

	h.MustExec("ip", "link", "del", "group", "7")
	within(going, "SIGTERM after all interfaces were deleted", d.Stop)
}
