package subject

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vswitch/internal/lab"
)

// vde is Virtual Distributed Ethernet's switch.
type vde struct{}

func (vde) can(t Topology) error {
	if t.Tunnel != "" {
		return errors.New("VDE has neither VXLAN nor GRE")
	}
	return missing("vde_switch", "vde_plug2tap", "ip")
}

func (vde) version() string { return firstLine("vde_switch", "--version") }

type vdeNode struct {
	lab    *lab.Lab
	host   *lab.Host
	dir    string // of its sockets
	proc   *lab.Proc
	taps   []string                  // of vde_switch itself
	spares map[string]*lab.Container // by the name their TAP had
	plugs  []int                     // process ids of vde_plug2tap
}

func tapOf(container string) string { return "tap-" + container }

func (vde) start(s site) node {
	n := &vdeNode{lab: s.Lab, host: s.host, spares: make(map[string]*lab.Container)}
	var err error
	if n.dir, err = os.MkdirTemp(s.Dir(), "v"); err != nil {
		s.T().Fatalf("subject: vde: %v", err)
	}
	// Addresses live as long as they do elsewhere.
	settings := filepath.Join(n.dir, "rc")
	if err := os.WriteFile(settings, []byte("hash/setexpire 300\n"), 0o644); err != nil {
		s.T().Fatalf("subject: vde: %v", err)
	}
	const more = 32 // ports that come later
	command := []string{"vde_switch", "--sock", n.sock(), "--mgmt", n.mgmt(), "--rcfile", settings,
		"--numports", strconv.Itoa(len(s.containers) + s.Idle + more)}
	if s.TableSize > 0 {
		command = append(command, "--hashsize", strconv.Itoa(s.TableSize)) // it has chains, and no limit
	}
	for _, name := range s.containers {
		n.taps = append(n.taps, tapOf(name))
	}
	for i := range s.Idle {
		n.taps = append(n.taps, idleName(i))
	}
	for _, tap := range n.taps {
		command = append(command, "--tap", tap)
	}
	// In the foreground it ends when its standard input does.
	stdin, hold, err := os.Pipe()
	if err != nil {
		s.T().Fatalf("subject: vde: %v", err)
	}
	n.lab.Cleanup(func() { stdin.Close(); hold.Close() })
	n.proc = s.host.StartWith(stdin, command...)
	if err := lab.Wait(10*time.Second, func() error {
		_, err := n.ask("showinfo")
		return err
	}); err != nil {
		s.T().Fatalf("subject: vde_switch: %v\n%s", err, n.proc.Out)
	}
	return n
}

func (n *vdeNode) sock() string { return filepath.Join(n.dir, "ctl") }
func (n *vdeNode) mgmt() string { return filepath.Join(n.dir, "mgmt") }

// container moves a TAP of the switch into a container. What comes later has a TAP
// that nobody holds yet.
func (n *vdeNode) container(name string, options ...lab.ContainerOption) *lab.Container {
	tap := tapOf(name)
	spare := !slices.Contains(n.taps, tap)
	if spare {
		n.host.MustExec("ip", "tuntap", "add", "name", tap, "mode", "tap")
	}
	c := n.host.Container(name, append(options, lab.Moved(tap))...)
	if spare {
		n.spares[tap] = c
	}
	return c
}

// idle lets the switch's TAPs stay where they are.
func (n *vdeNode) idle(count int) []string {
	var batch strings.Builder
	for i := range count {
		fmt.Fprintf(&batch, "link set dev %s group %s up\n", idleName(i), group)
	}
	runBatch(n.lab, n.host, batch.String())
	n.lab.Cleanup(func() { deleteIdle(n.host) })
	return nil // ports they are already
}

// join has nothing to do: the ports came with the switch.
func (n *vdeNode) join([]string) {}

func (n *vdeNode) tunnels([]string) error {
	return fmt.Errorf("%w make tunnels", ErrCannot)
}

// addPort runs vde_plug2tap in the container that has the TAP: it holds the one
// end, and a port of the switch the other.
func (n *vdeNode) addPort(ifname string) error {
	c := n.spares[ifname]
	if c == nil {
		return fmt.Errorf("%s is no TAP that waits for VDE", ifname)
	}
	pidfile := filepath.Join(n.dir, ifname+".pid")
	if _, err := c.Exec("vde_plug2tap", "--daemon", "--pidfile", pidfile, "--sock", n.sock(), "eth0"); err != nil {
		return err
	}
	delete(n.spares, ifname)
	return lab.Wait(5*time.Second, func() error {
		text, err := os.ReadFile(pidfile)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil {
			n.plugs = append(n.plugs, pid)
		}
		return err
	})
}

// macs counts the lines of the table. vde_switch writes its answer once, and what its
// socket does not take (after some 3,000 addresses) is lost.
func (n *vdeNode) macs() (int, error) {
	lines, err := n.ask("hash/print")
	if errors.Is(err, io.ErrUnexpectedEOF) && len(lines) > 1 {
		return 0, fmt.Errorf("%w say how many addresses it has when there are more than %d: its answer is cut", ErrCannot, len(lines)-2)
	}
	count := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "Hash:") {
			count++
		}
	}
	return count, err
}

// ask gives the management socket a command, and returns the lines of its answer,
// the first ones with an error:
//
//	0000 DATA END WITH '.'
//	…
//	.
//	1000 Success
func (n *vdeNode) ask(command string) (lines []string, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.mgmt(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = fmt.Fprintln(conn, command)
	if err == nil {
		err = conn.CloseWrite() // it closes the other way once it has answered
	}
	if err != nil {
		return nil, fmt.Errorf("vde_switch: %s: %w", command, err)
	}
	in := bufio.NewScanner(conn)
	for in.Scan() {
		line := in.Text()
		if strings.HasPrefix(line, "1000 ") {
			return lines, nil
		}
		if len(line) > 4 && line[0] == '1' && line[4] == ' ' {
			return nil, fmt.Errorf("vde_switch: %s: %s", command, line)
		}
		lines = append(lines, line)
	}
	if err = in.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	return lines, fmt.Errorf("vde_switch: %s: %w", command, err)
}

func (n *vdeNode) processes() []process {
	all := []process{{name: "vde_switch", pid: n.proc.PID()}}
	for _, pid := range n.plugs {
		all = append(all, process{name: "vde_plug2tap", pid: pid})
	}
	return all
}
