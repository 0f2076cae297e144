package ctl_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// TestMissingCapabilities runs vswitchd without what it needs: the ports say
// which capability that is, and the daemon goes on.
//
//	c1 ── veth-c1 [host a: vswitchd as somebody else, br0, vm0, int0]
func TestMissingCapabilities(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1")
	// The program, taken from a daemon that runs, since it has no path.
	d := h.Daemon(lab.DaemonOptions{})
	program := filepath.Join(l.Dir(), "vswitchd")
	copyFile(t, fmt.Sprintf("/proc/%d/exe", d.Process().PID()), program)
	d.Stop()
	empty := h.Snapshot()

	for _, c := range []struct {
		name string
		with []string
		uid  int
		want map[string]string // by port
	}{
		{"without CAP_NET_RAW", []string{"--bounding-set", "-net_raw"}, 0, map[string]string{
			c1.Veth: "CAP_NET_RAW", "vm0": "CAP_NET_RAW"}},
		{"without CAP_NET_ADMIN", []string{"--bounding-set", "-net_admin"}, 0, map[string]string{
			// The veth is up already, and CAP_SYS_ADMIN loads its tc program.
			"br0": "CAP_NET_ADMIN", "int0": "CAP_NET_ADMIN", "vm0": "CAP_NET_ADMIN"}},
		{"not root", []string{"--reuid", "65534", "--regid", "65534", "--clear-groups"}, 65534, map[string]string{
			c1.Veth: "CAP_", "br0": "CAP_NET_ADMIN", "int0": "CAP_NET_ADMIN", "vm0": "CAP_NET_ADMIN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run, state := filepath.Join(l.Dir(), "r"), filepath.Join(l.Dir(), "s")
			for _, dir := range []string{run, state} {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(dir, c.uid, c.uid); err != nil {
					t.Fatal(err)
				}
			}
			p := h.Start(append(append([]string{"setpriv"}, c.with...), program, "--run-dir", run, "--state-dir", state)...)
			client := api.NewClient(filepath.Join(run, "ctl.sock"), patient)
			defer client.Close()
			ctx := context.Background()
			lab.Eventually(t, patient, func() error {
				_, err := client.Version(ctx)
				if err != nil {
					err = fmt.Errorf("%w\n%s", err, p.Out)
				}
				return err
			})
			_, err := client.Edit(ctx, api.Edit{Ops: []config.Op{
				{Op: "add-bridge", Bridge: "br0", Options: config.Options{"ip": "10.0.0.254/24"}},
				{Op: "add-port", Bridge: "br0", Port: c1.Veth},
				{Op: "add-port", Bridge: "br0", Port: "vm0", Options: config.Options{"type": "tap"}},
				{Op: "add-port", Bridge: "br0", Port: "int0", Options: config.Options{"type": "internal"}},
			}})
			if err != nil {
				t.Fatalf("%v\n%s", err, p.Out)
			}
			st, err := client.Status(ctx, "br0")
			if err != nil {
				t.Fatal(err)
			}
			for _, port := range st.Bridges[0].Ports {
				want := c.want[port.Name]
				if want != "" && (port.State != api.PortError || has(port.Reason, want) != nil) {
					t.Errorf("%s is %s (%s), want an error that names %s", port.Name, port.State, port.Reason, want)
				}
				t.Logf("%s is %s: %s", port.Name, port.State, port.Reason)
			}
			if err := p.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(patient); err != nil {
				t.Errorf("it ended with %v\n%s", err, p.Out)
			}
			if log := p.Out.String(); strings.Contains(log, "panic") {
				t.Errorf("it panicked:\n%s", log)
			}
			unchanged(t, "after its end", empty, h)
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSocket talks to the API as curl does, with bodies of 64 KiB and more.
//
//	[host a: vswitchd]
func TestSocket(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	d := h.Daemon(lab.DaemonOptions{})
	info, err := os.Stat(d.Socket)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket is %v, %v; want mode 0660", info, err)
	}
	curl := func(args ...string) string {
		t.Helper()
		out, err := h.Exec(append([]string{"curl", "-sS", "--max-time", "10", "--unix-socket", d.Socket, "-w", "\n%{http_code}"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := has(curl("http://vswitch/v1/version"), `"api":1`, "\n200"); err != nil {
		t.Error(err)
	}
	if err := has(curl("-d", `{"ops":[{"op":"add-bridge","bridge":"br0"}]}`, "http://vswitch/v1/edit"), `"changed":true`, "\n200"); err != nil {
		t.Error(err)
	}
	if err := has(curl("-d", `{"ops":[{"op":"add-bridge","bridge":"br0"}]}`, "http://vswitch/v1/edit"), "exists already", "\n400"); err != nil {
		t.Error(err)
	}

	// Static MACs make a document of any length, and no work for the kernel.
	var doc strings.Builder
	doc.WriteString("bridges:\n- name: br0\n  fdb:\n")
	for i := 0; doc.Len() < 64<<10; i++ {
		fmt.Fprintf(&doc, "  - {mac: \"02:00:00:00:%02x:%02x\", vlan: 1, port: br0}\n", i>>8, i&255)
	}
	file := write(t, l, doc.String())
	begin := time.Now()
	if err := has(curl("-X", "PUT", "--data-binary", "@"+file, "http://vswitch/v1/config"), `"changed":true`, "\n200"); err != nil {
		t.Error(err)
	}
	t.Logf("a document of %d bytes took %v", doc.Len(), time.Since(begin))
	if err := has(curl("-X", "PUT", "--data-binary", "@"+file, "http://vswitch/v1/config"), `"changed":false`, "\n200"); err != nil {
		t.Error(err)
	}
	if out := d.Ctl("diff", "-f", file); out != "" {
		t.Errorf("diff: %s", out)
	}
}
