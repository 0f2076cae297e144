package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vswitch/ctl/api"
)

// TestUnit holds the systemd unit against what the daemon needs of it. A line that is
// missed there is missed only under systemd, by whoever asks for that one thing.
func TestUnit(t *testing.T) {
	unit := readUnit(t, "../../packaging/vswitchd.service")
	words := func(key string) []string { return strings.Fields(strings.Join(unit["Service."+key], " ")) }
	is := func(key, want, why string) {
		t.Helper()
		if got := strings.Join(unit["Service."+key], " "); got != want {
			t.Errorf("%s=%s, want %q: %s", key, got, want, why)
		}
	}
	has := func(key, why string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !slices.Contains(words(key), w) {
				t.Errorf("%s=%s lacks %s: %s", key, strings.Join(words(key), " "), w, why)
			}
		}
	}

	start := words("ExecStart")
	if len(start) == 0 || start[0] != "@SBINDIR@/vswitchd" {
		t.Fatalf("ExecStart=%q: `make install` writes @SBINDIR@", start)
	}
	f, err := parse(start[1:], io.Discard)
	if err != nil {
		t.Fatalf("ExecStart: %v", err)
	}
	is("RuntimeDirectory", strings.TrimPrefix(f.RunDir, "/run/"), "it is --run-dir, and writable")
	is("StateDirectory", strings.TrimPrefix(f.StateDir, "/var/lib/"), "it is --state-dir, and writable")
	socket := filepath.Join(f.RunDir, "ctl.sock")
	if socket != api.DefaultSocket {
		t.Errorf("the API's socket is %s, and vswitchctl looks for it at %s", socket, api.DefaultSocket)
	}
	has("ExecStartPost", "it is the API's socket that is given to the group", api.Group, socket)
	if filepath.Dir(f.Plug.DockerPlugin) != f.RunDir {
		t.Errorf("--docker-plugin %s: want it in the run directory, which alone is writable", f.Plug.DockerPlugin)
	}
	spec, err := os.ReadFile("../../packaging/vswitch.spec")
	if want := "unix://" + f.Plug.DockerPlugin + "\n"; err != nil || string(spec) != want {
		t.Errorf("Docker looks for the driver at %q (%v), want %q", spec, err, want)
	}

	is("Type", "notify", "who waits for the switch waits for its ports")
	is("Restart", "on-failure", "it comes back when it was killed")
	is("RestartPreventExitStatus", "", "a panic exits with 2")
	is("RuntimeDirectoryPreserve", "no", "a stale socket helps nobody")
	has("CapabilityBoundingSet", "see its comment", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_BIND_SERVICE")
	has("RestrictAddressFamilies", "see its comment", "AF_PACKET", "AF_NETLINK", "AF_UNIX", "AF_INET", "AF_INET6")
	has("SystemCallFilter", "the stops are eBPF, the doctor asks for the clock", "@system-service", "bpf", "adjtimex")
	has("DeviceAllow", "TAPs", "/dev/net/tun", "rw")
	has("ReadWritePaths", "captures, and the lock of the older iptables", "-/tmp", "-/var/tmp", "-/run/xtables.lock")
	for key, why := range map[string]string{
		"PrivateTmp":            "captures are below the host's /tmp",
		"PrivateNetwork":        "the host's interfaces are the work",
		"PrivateUsers":          "capabilities count in the host's user namespace",
		"PrivateDevices":        "it hides /dev/net/tun",
		"ProtectClock":          "it forbids to ask for the clock's state",
		"ProtectKernelTunables": "forwarding is switched on below /proc/sys",
		"ProtectProc":           "containers' namespaces are found below /proc",
		"ProcSubset":            "/proc/sys is more than processes",
		"RestrictNamespaces":    "containers' namespaces are entered",
		"MountFlags":            "what ip-netns(8) mounts must reach the daemon",
	} {
		is(key, "", why)
	}
}

// readUnit returns a unit file's lines by "Section.Key", in their order.
func readUnit(t *testing.T, path string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unit, section := map[string][]string{}, ""
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case !ok || strings.HasSuffix(line, `\`):
			t.Fatalf("%s:%d: %q: want KEY=VALUE on one line", path, n+1, line)
		default:
			unit[section+"."+key] = append(unit[section+"."+key], value)
		}
	}
	return unit
}
