package subject

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vswitch/internal/lab"
)

// vswitch is this project's, as built.
type vswitch struct {
	bin  string
	args []string // of vswitchd
}

func (d vswitch) can(Topology) error {
	for _, name := range []string{"vswitchd", "vswitchctl"} {
		if _, err := os.Stat(filepath.Join(d.bin, name)); err != nil {
			return fmt.Errorf("there is no %s in %s", name, d.bin)
		}
	}
	return nil
}

func (d vswitch) version() string { return firstLine(filepath.Join(d.bin, "vswitchd"), "--version") }

// vswitchNode holds its configuration document (see docs/options.md), so that many
// ports are one apply.
type vswitchNode struct {
	lab    *lab.Lab
	host   *lab.Host
	daemon *lab.Daemon
	ports  []map[string]any
	table  int
}

const bridgeName = "br0" // of every subject

func (d vswitch) start(s site) node {
	n := &vswitchNode{lab: s.Lab, host: s.host, table: s.TableSize}
	n.daemon = s.host.Daemon(lab.DaemonOptions{BinDir: d.bin, Args: d.args})
	if s.Tunnel != "" {
		n.ports = append(n.ports, tunnelPort("tunnel", s.Tunnel, underlayAddr(s.peer)))
	}
	return n
}

func tunnelPort(name, kind, remote string) map[string]any {
	return map[string]any{"name": name, "type": kind, "key": json.Number(tunnelKey), "remote_ip": remote}
}

func (n *vswitchNode) container(name string, options ...lab.ContainerOption) *lab.Container {
	return n.host.Container(name, options...)
}

// idle lets the daemon end before the interfaces go: it would take note of each. To
// the others it is the end of sockets that takes time.
func (n *vswitchNode) idle(count int) []string {
	names := vethPairs(n.lab, n.host, count)
	n.lab.Cleanup(n.daemon.Stop)
	return names
}

func (n *vswitchNode) join(ifnames []string) {
	for _, name := range ifnames {
		n.ports = append(n.ports, map[string]any{"name": name})
	}
	n.apply()
}

func (n *vswitchNode) tunnels(remotes []string) error {
	for _, remote := range remotes {
		n.ports = append(n.ports, tunnelPort("t"+remote, "vxlan", remote))
	}
	n.apply()
	return nil
}

func (n *vswitchNode) apply() {
	bridge := map[string]any{"name": bridgeName, "ports": n.ports}
	if n.table > 0 {
		bridge["mac-table-size"] = n.table
	}
	document, err := json.Marshal(map[string]any{"bridges": []any{bridge}})
	if err == nil {
		err = os.WriteFile(filepath.Join(n.daemon.RunDir, "bed.json"), document, 0o644)
	}
	if err != nil {
		n.lab.T().Fatalf("subject: write document: %v", err)
	}
	n.daemon.Ctl("--timeout", "50s", "apply", "-f", filepath.Join(n.daemon.RunDir, "bed.json"))
}

func (n *vswitchNode) addPort(ifname string) error {
	if _, stderr, code := n.daemon.CtlErr("add-port", bridgeName, ifname); code != 0 {
		return fmt.Errorf("vswitchctl add-port: status %d: %s", code, strings.TrimSpace(stderr))
	}
	n.ports = append(n.ports, map[string]any{"name": ifname})
	return nil
}

func (n *vswitchNode) macs() (int, error) {
	var stats []struct{ Entries, Static int }
	n.daemon.CtlJSON(&stats, "fdb", "stats", bridgeName)
	if len(stats) != 1 {
		return 0, fmt.Errorf("vswitchctl fdb stats tells of %d bridges", len(stats))
	}
	return stats[0].Entries - stats[0].Static, nil
}

func (n *vswitchNode) processes() []process {
	return []process{{name: "vswitchd", pid: n.daemon.Process().PID()}}
}

// firstLine returns the first line that a program says of itself.
func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return "unknown version"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// missing returns which program is not installed.
func missing(programs ...string) error {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is not installed", name)
		}
	}
	return nil
}
