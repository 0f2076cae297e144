package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
)

// paths are some that somebody might see.
func paths() map[string]api.Path {
	key := uint32(42)
	vx := func(port, remote string) api.PathOutput {
		return api.PathOutput{Port: port, Type: "vxlan", Remote: remote, Key: &key}
	}
	there := api.Path{
		Target: "10.0.0.2", MAC: "02:00:00:00:00:02", Source: "02:00:00:00:00:01", Reached: true,
		Verdict: "02:00:00:00:00:02 leaves by veth9 of bridge br0 on hostC, over 2 tunnels",
		Hops: []api.PathHop{
			{Hop: 0, Host: "hostA", Bridge: "br0", InPort: "veth1", Dwell: 61.2, Outputs: []api.PathOutput{vx("vx0", "10.9.0.2")}},
			{Hop: 1, Host: "hostB", Bridge: "br0", InPort: "vx0", RTT: 410.7, Dwell: 88.4, Outputs: []api.PathOutput{{Bridge: "br1", Port: "vx1", Type: "vxlan", Remote: "10.9.0.3", Key: &key}}},
			{Hop: 2, Host: "hostC", Bridge: "br0", InPort: "vx1", RTT: 12345.6, Dwell: 70, Outputs: []api.PathOutput{{Port: "veth9", Type: "packet"}}},
		},
	}
	flooded := api.Path{
		Target: "02:00:00:00:00:09", MAC: "02:00:00:00:00:09", Source: "02:aa:00:00:00:01", Made: true, VLAN: 10, Reached: true,
		Verdict: "02:00:00:00:00:09 is flooded: nobody knows where it is; it leaves by one port on one switch; no answer from 10.9.0.3: not a vswitch",
		Fix:     "the switches learn where it is as soon as it sends something: ping from it once",
		Hops: []api.PathHop{
			{Hop: 0, Host: "hostA", Bridge: "br0", InPort: "veth1", VLAN: 10, Dwell: 61.2, Notes: []string{"the address is not in the table here: the frame is flooded"},
				Outputs: []api.PathOutput{vx("m0:a-host-with-quite-a-long-name", "2001:db8:1234:5678:9abc:def0:1234:5678"), vx("vx1", "10.9.0.3"), {Port: "veth2", Type: "packet"}}},
			{Hop: 1, Host: "hostB\x1b[31m", Bridge: "br0", InPort: "vx0", VLAN: 10, RTT: 410.7, Dwell: 88.4, Notes: []string{"the address is behind veth9 here, in VLAN 20"},
				Drops: []api.PathDrop{{Port: "vx0", Reason: "no-output", Help: "no other port that is up is in the frame's VLAN; normal on a bridge with one port, else compare the ports' VLANs in show"}}},
			{Hop: 1, VLAN: 10, Silent: true, Notes: []string{"no answer from 10.9.0.3: not a vswitch, or unreachable, or its answer was lost"}},
		},
	}
	return map[string]api.Path{"path": there, "path-flooded": flooded}
}

func TestPathGolden(t *testing.T) {
	for name, p := range paths() {
		c := newCLI(t)
		c.svc.P.Path = p
		golden(t, c, map[string][]string{name: {"trace", "--path", p.Target, "veth1"}, name + "-json": {"trace", "--path", p.Target, "veth1", "-o", "json"}})
	}
}

func TestPathAsks(t *testing.T) {
	c := newCLI(t)
	vlan := 10
	for _, tc := range []struct {
		args string
		want api.PathQuery
		errs string
	}{
		{"veth1", api.PathQuery{FromPort: "veth1"}, ""},
		{"veth1 br0 vlan=10", api.PathQuery{FromPort: "veth1", Bridge: "br0", VLAN: &vlan}, ""},
		{"br0 in_port=veth1", api.PathQuery{FromPort: "veth1", Bridge: "br0"}, ""},
		{"vlan=10", api.PathQuery{}, "wants the port"},
		{"veth1 vlan=5000", api.PathQuery{}, "0 (untagged) to 4094"},
		{"veth1 br0 br1", api.PathQuery{}, `"br1"`},
		{"veth1 eth_dst=1", api.PathQuery{}, `"eth_dst=1"`},
	} {
		code, _, errs := c.run("", append([]string{"trace", "--path", "10.0.0.2"}, strings.Fields(tc.args)...)...)
		asked := c.svc.Asked()
		if tc.errs != "" {
			if code != exitUsage || len(asked) > 0 || !strings.Contains(errs, tc.errs) {
				t.Errorf("%s: status %d, %q", tc.args, code, errs)
			}
			continue
		}
		tc.want.Target = "10.0.0.2"
		if code != exitDone || !reflect.DeepEqual(asked, []any{tc.want}) {
			t.Errorf("%s: status %d, asked %+v, want %+v", tc.args, code, asked, tc.want)
		}
	}
	if code, _, errs := c.run("", "trace", "--path", "nobody", "veth1"); code != exitRefused || !strings.Contains(errs, "a MAC address such as") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestDoctorGolden(t *testing.T) {
	c := newCLI(t)
	c.svc.P.Doctor = api.Doctor{OK: 3, Warn: 1, Unknown: 1, Took: 1234 * time.Millisecond, Findings: []api.Finding{
		{Group: "host", Check: "clock", Status: api.StatusWarn, What: "nobody keeps it right: captures and events of several hosts cannot be laid side by side", Fix: "run a time service, such as chrony or systemd-timesyncd"},
		{Group: "host", Check: "capabilities", Status: api.StatusOK, What: "the daemon has CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF or CAP_SYS_ADMIN"},
		{Group: "kernel", Check: "feature", Subject: "UDP_GRO", Status: api.StatusOK, What: "present"},
		{Group: "tunnels", Check: "mtu", Subject: "vx\x1b[1m0", Status: api.StatusUnknown, What: "could not tell: 10.0.0.9 answers neither probes nor pings", Fix: "is the host up, and does its firewall let ICMP and the tunnel through? ping 10.0.0.9; vswitchctl doctor --peer 10.0.0.9"},
		{Group: "checksums", Check: "tcp-exchange", Subject: "offload=on", Status: api.StatusOK, What: "TCP over IPv4 and IPv6 between two ports: super-frames stayed whole, checksums are right"},
	}}
	golden(t, c, map[string][]string{
		"doctor": {"doctor"}, "doctor-brief": {"doctor", "br0", "--brief", "--peer", "10.0.0.9"}, "doctor-yaml": {"doctor", "-o", "yaml"},
	})
	c.svc.Asked()
	c.run("", "doctor", "br0", "--peer", "10.0.0.9")
	if asked := c.svc.Asked(); len(asked) != 1 || asked[0] != (api.DoctorQuery{Bridge: "br0", Peer: "10.0.0.9"}) {
		t.Errorf("%+v", asked)
	}

	// What fails is the exit status, also in JSON.
	c.svc.P.Doctor.Fail = 1
	c.svc.P.Doctor.Findings = append(c.svc.P.Doctor.Findings, api.Finding{Group: "peer", Check: "ping", Status: api.StatusFail, What: "it does not"})
	for _, format := range []string{"table", "json"} {
		code, out, errs := c.run("", "doctor", "-o", format)
		if code != exitRefused || errs != "vswitchctl: 3 ok, 1 warn, 1 FAIL, 1 could not tell\n" || !strings.Contains(out, "it does not") {
			t.Errorf("%s: status %d\n%s%s", format, code, out, errs)
		}
	}
	c.svc.P.Doctor = api.Doctor{OK: 1, Findings: []api.Finding{{Group: "host", Check: "clock", Status: api.StatusOK, What: "fine"}}}
	if _, out, _ := c.run("", "doctor", "--brief"); out != "nothing is wrong\n" {
		t.Errorf("%q", out)
	}
}
