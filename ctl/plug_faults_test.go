package ctl_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// Faults that a review found, each once.

// TestPlugNamedLikeNIC takes no interface of the host's because a plug has its name.
func TestPlugNamedLikeNIC(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	pings(t, g.h, g.outside)
	g.d.CtlErr("add-port", "br0", "eth9", "type=plug", "container=netns:nobody")
	waitPort(t, g.d, "eth9", api.PortError, "somebody else's")
	pings(t, g.h, g.outside)
}

// TestUnconfirmedNAT goes back with the change that nobody confirmed.
func TestUnconfirmedNAT(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	rules := func(want bool) {
		t.Helper()
		lab.Eventually(t, patient, func() error {
			out, err := g.h.Exec("nft", "list", "ruleset")
			if strings.Contains(out, "masquerade") != want {
				return fmt.Errorf("masquerade: want %v, %v:\n%s", want, err, out)
			}
			return nil
		})
	}
	f := filepath.Join(g.l.Dir(), "doc.yaml")
	doc := strings.Replace(g.d.Ctl("export"), "ip: 10.0.0.1/24", "ip: 10.0.0.1/24\n    nat: masquerade", 1)
	if err := os.WriteFile(f, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	g.d.Ctl("apply", "--confirm", "2s", "-f", f)
	rules(true)
	rules(false)
}

// TestPlugOnFullDisk changes nothing where the change cannot be stored.
func TestPlugOnFullDisk(t *testing.T) {
	l := lab.New(t)
	h, one := l.Host("a"), l.Host("one")
	state := tmpfs(t, l, h, "")
	d := h.Daemon(lab.DaemonOptions{StateDir: state})
	d.Ctl("add-br", "br0", "ip=10.0.0.1/24")
	d.Ctl("plug", one.Name, "br0", "--ip", "10.0.0.5/24")
	if err := os.WriteFile(filepath.Join(state, "filler"), make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if _, _, code := d.CtlErr("plug", one.Name, "br0", "--ip", "10.0.0.6/24", "--may-exist"); code == 0 {
		t.Error("it is said to be changed")
	}
	lab.Eventually(t, patient, func() error {
		out, err := one.Exec("ip", "-4", "-br", "addr", "show", "eth1")
		if err != nil || !strings.Contains(out, "10.0.0.5") || strings.Contains(out, "10.0.0.6") {
			return fmt.Errorf("refused, and made all the same: %s, %v", out, err)
		}
		return nil
	})
}

// TestAttachmentsStand has what runtimes attached refuse a change that contradicts it, and an
// operator's plug leave it alone.
func TestAttachmentsStand(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	c := g.d.Client()
	defer c.Close()
	ctx := context.Background()
	a, err := c.Attach(ctx, api.Attachment{Owner: "cni", Key: "k1/eth0", Bridge: "br0", NetNS: "/run/netns/" + g.one.Name, IfName: "eth0", Options: config.Options{"ip": "10.0.0.50/24"}})
	if err != nil || a.Plug.State != api.PlugPlugged {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, stderr, code := g.d.CtlErr("set-br", "br0", "ip=10.1.0.1/24"); code == 0 || !strings.Contains(stderr, "10.0.0.50") {
		t.Errorf("the bridge's subnet: %d, %s", code, stderr)
	}
	if _, stderr, code := g.d.CtlErr("del-br", "br0"); code == 0 || !strings.Contains(stderr, "cni") {
		t.Errorf("the bridge: %d, %s", code, stderr)
	}
	if _, stderr, code := g.d.CtlErr("plug", "/run/netns/"+g.one.Name, "br0", "--ifname", "eth0", "--ip", "10.0.0.77/24"); code == 0 || !strings.Contains(stderr, "by cni") {
		t.Errorf("its interface: %d, %s", code, stderr)
	}
	if _, err := c.Attach(ctx, api.Attachment{Owner: "cni", Key: "k\x00/eth0", Bridge: "br0", NetNS: "/run/netns/" + g.two.Name, IfName: "eth0"}); err == nil {
		t.Error("a key with a zero byte is taken")
	}
	if got := g.plug("/run/netns/" + g.one.Name); got.State != api.PlugPlugged || got.Addresses[0].Addr().String() != "10.0.0.50" {
		t.Errorf("it is %+v", got)
	}
	if _, stderr, code := g.d.CtlErr("unplug", g.one.Name); code == 0 || !strings.Contains(stderr, "is plugged in by cni, which takes it away; if that forgot it, name the port: unplug "+a.Plug.Port) {
		t.Errorf("its container: %d, %s", code, stderr)
	}
	for _, verb := range []string{"set-port", "del-port"} {
		if _, stderr, code := g.d.CtlErr(append([]string{verb, a.Plug.Port}, map[string][]string{"set-port": {"tag=5"}}[verb]...)...); code == 0 ||
			!strings.Contains(stderr, verb+" "+a.Plug.Port+": port "+a.Plug.Port+" is there for cni, which alone changes it") {
			t.Errorf("%s: %d, %s", verb, code, stderr)
		}
	}
	// Who knows its port may end what a runtime forgot.
	g.d.Ctl("unplug", a.Plug.Port)
	if got := links(t, g.one); strings.Contains(got, "eth0") {
		t.Errorf("unplugged, and there is %s", got)
	}
	g.d.Ctl("set-br", "br0", "ip=10.1.0.1/24")
}

// TestSameAddressInTwoVLANs is two networks.
func TestSameAddressInTwoVLANs(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	g.d.Ctl("plug", g.one.Name, "br0", "--ip", "10.0.0.5/24", "tag=10")
	g.d.Ctl("plug", g.two.Name, "br0", "--ip", "10.0.0.5/24", "tag=20")
}

// TestHungDockerHoldsUpItself with a hundred plugs that wait for it.
func TestHungDockerHoldsUpItself(t *testing.T) {
	l := lab.New(t)
	h, one := l.Host("a"), l.Host("one")
	sock := filepath.Join(l.Dir(), "docker.sock")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--docker", sock}})
	doc := "bridges:\n- name: br0\n  ip: 10.0.0.1/16\n  ports:\n"
	for i := range 100 {
		doc += fmt.Sprintf("  - {name: p%d, type: plug, container: \"docker:c%d\", ip: auto}\n", i, i)
	}
	f := filepath.Join(l.Dir(), "doc.yaml")
	if err := os.WriteFile(f, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Ctl("apply", "-f", f)
	began := time.Now()
	d.Ctl("plug", "netns:"+one.Name, "br0", "--ip", "auto")
	d.Ctl("unplug", "netns:"+one.Name, "br0")
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("who has nothing to do with Docker waited %s", took)
	}
	if got := links(t, one); strings.Contains(got, "eth1") {
		t.Errorf("unplugged, and there is %s", got)
	}
}
