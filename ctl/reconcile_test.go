package ctl

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
)

func TestReopens(t *testing.T) {
	for _, c := range []struct {
		old, new config.Options
		want     bool
	}{
		{nil, nil, false},
		{config.Options{"tag": "1"}, config.Options{"tag": "2", "offload": "false", "trunks": "1", "vlan_mode": "trunk"}, false},
		{config.Options{"ip": "10.0.0.1/24"}, config.Options{"mac": "02:00:00:00:00:01", "mtu": "9000"}, false},
		{nil, config.Options{"n_rxq": "2"}, true},
		{config.Options{"n_rxq": "2"}, config.Options{"n_rxq": "2"}, false},
		{config.Options{"n_rxq": "2"}, nil, true},
		{nil, config.Options{"rx-buffer": "65536"}, true},
		{nil, config.Options{"n_rxq_desc": "0"}, true},
		{nil, config.Options{"tx-ring": "64"}, true},
		{nil, config.Options{"owner": "1"}, true},
		{nil, config.Options{"group": "1"}, true},
	} {
		if got := reopens(c.old, c.new); got != c.want {
			t.Errorf("from %v to %v: %v", c.old, c.new, got)
		}
	}
}

func TestMACDerivation(t *testing.T) {
	one, two := &reconciler{instance: "0123456789abcdef"}, &reconciler{instance: "0123456789abcdee"}
	br0, br1 := config.Port{Name: "br0"}, config.Port{Name: "br1"}
	mac := one.mac(br0)
	if mac.String() != one.mac(br0).String() {
		t.Error("it is not the same twice")
	}
	// It stays through versions of the program: neighbours know it.
	if mac.String() != "2e:4a:00:9f:c9:d8" {
		t.Errorf("it is %s: neighbours of existing switches know another", mac)
	}
	seen := map[string]bool{mac.String(): true}
	for _, m := range []net.HardwareAddr{one.mac(br1), two.mac(br0), two.mac(br1)} {
		if seen[m.String()] {
			t.Errorf("%s is that of two interfaces", m)
		}
		seen[m.String()] = true
		if m[0]&1 != 0 || m[0]&2 == 0 {
			t.Errorf("%s is not unicast and locally administered", m)
		}
	}
	br0.Options = config.Options{"mac": "02:00:00:00:00:01"}
	if m := one.mac(br0); m.String() != "02:00:00:00:00:01" {
		t.Errorf("mac= gives %s", m)
	}
}

func TestBackoff(t *testing.T) {
	r := &reconciler{log: slog.New(slog.NewTextHandler(io.Discard, nil)), tell: func(api.Event) {}}
	p := &portState{}
	now := time.Now()
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		r.fail(p, now, errors.New("it does not work"))
		if got := p.retryAt.Sub(now); got != want*time.Second || p.state != api.PortError || p.reason != "it does not work" {
			t.Errorf("tried again after %v, want %v; %s: %s", got, want*time.Second, p.state, p.reason)
		}
	}
	if p.forgive(); !p.retryAt.IsZero() {
		t.Error("not forgiven")
	}
	r.fail(p, now, errors.New("again"))
	if p.backoff != minBackoff {
		t.Errorf("after it was forgiven it waits %v", p.backoff)
	}
}

func TestStateIsToldOnce(t *testing.T) {
	var told []api.Event
	r := &reconciler{log: slog.New(slog.NewTextHandler(io.Discard, nil)), tell: func(e api.Event) { told = append(told, e) }}
	p := &portState{bridge: "br0", port: config.Port{Name: "veth1"}}
	for range 3 {
		r.setState(p, api.PortWaiting, "why")
	}
	since := p.since
	r.setState(p, api.PortWaiting, "another reason")
	if p.since != since {
		t.Error("another reason made the state new")
	}
	r.setState(p, api.PortUp, "")
	if len(told) != 3 || told[0].Kind != "port-waiting" || told[0].Message != "port veth1 of br0 is waiting: why" || told[2].Message != "port veth1 of br0 is up" {
		t.Errorf("told %+v", told)
	}
}

func TestInstance(t *testing.T) {
	dir := t.TempDir()
	d := &Daemon{log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	first := d.instance(dir)
	if len(first) != 16 || d.instance(dir) != first {
		t.Errorf("it is %q, then %q", first, d.instance(dir))
	}
	if other := d.instance(t.TempDir()); other == first {
		t.Error("two directories have one identity")
	}
	// One that was cut off by a full disk is made anew.
	if err := os.WriteFile(filepath.Join(dir, "instance"), []byte(first[:7]), 0o644); err != nil {
		t.Fatal(err)
	}
	if second := d.instance(dir); second == first || len(second) != 16 || d.instance(dir) != second {
		t.Errorf("after damage it is %q", second)
	}
	if id := d.instance(filepath.Join(dir, "none")); len(id) != 16 {
		t.Errorf("without a directory it is %q", id)
	}
}

func TestAccounts(t *testing.T) {
	for name, want := range map[string]int{"0": 0, "1234": 1234, "root": 0} {
		if id, err := userID(name); err != nil || id != want {
			t.Errorf("user %s is %d, %v", name, id, err)
		}
		if id, err := groupID(name); err != nil || id != want {
			t.Errorf("group %s is %d, %v", name, id, err)
		}
	}
	if _, err := userID("nobody-is-called-so"); err == nil || err.Error() != `owner "nobody-is-called-so": /etc/passwd has no such user; of one who is kept elsewhere, give the number (id -u nobody-is-called-so)` {
		t.Error(err)
	}
	if _, err := groupID("nobody-is-called-so"); err == nil {
		t.Error("a group that does not exist has a number")
	}
}

// TestLinksKeepNoMessages: an interface's MAC does not hold on to the netlink message
// that it came in.
func TestLinksKeepNoMessages(t *testing.T) {
	message := make([]byte, 4096)
	r := &reconciler{links: map[string]ports.Link{}}
	l := r.seenLocked(ports.Link{Name: "veth1", MAC: message[40:46]})
	for _, mac := range []net.HardwareAddr{l.MAC, r.links["veth1"].MAC} {
		if &mac[0] == &message[40] || len(mac) != 6 {
			t.Errorf("its MAC is %d bytes of the message", len(mac))
		}
	}
}
