package ctl_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"vswitch/internal/lab"
)

// tmux is a terminal of its own.
type tmux struct {
	t      *testing.T
	socket string
}

// newTmux runs a command in a terminal of 80x24.
func newTmux(t *testing.T, dir, command string) *tmux {
	t.Helper()
	x := &tmux{t: t, socket: filepath.Join(dir, "tmux")}
	x.do("new-session", "-d", "-x", "80", "-y", "24", command)
	t.Cleanup(func() { x.try("kill-server") })
	return x
}

func (x *tmux) try(args ...string) (string, error) {
	out, err := exec.Command("tmux", append([]string{"-S", x.socket, "-f", "/dev/null"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("tmux %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (x *tmux) do(args ...string) string {
	x.t.Helper()
	out, err := x.try(args...)
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

func (x *tmux) keys(keys ...string) {
	x.t.Helper()
	x.do(append([]string{"send-keys"}, keys...)...)
}

// wait waits until the terminal shows every one of the words.
func (x *tmux) wait(words ...string) {
	x.t.Helper()
	lab.Eventually(x.t, patient, func() error { return has(x.do("capture-pane", "-p"), words...) })
}

// TestTop watches a switch in a terminal, by tmux, on each kind of terminal:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── 10.0.0.2 c2
func TestTop(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "vswitch/cmd/vswitchd", "vswitch/cmd/vswitchctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p := newPair(t, lab.DaemonOptions{BinDir: bin})
	p.d.Ctl("add-port", "br0", "late")
	p.c1.Start("ping", "-i", "0.05", "10.0.0.2")
	p.c2.Start("ping", "-i", "0.05", "10.0.0.1")
	ctl := filepath.Join(bin, "vswitchctl") + " --ctl " + p.d.Socket
	// What the terminal is like after it ended is told by what comes then.
	then := `; echo status=$?; stty -a | tr ' ;' '\n\n' | grep -x -e icanon -e -icanon; exec sleep 1000`
	x := newTmux(t, t.TempDir(), "sleep 1000")
	run := func(term, args string) {
		t.Helper()
		x.do("respawn-window", "-k", "sh -c '"+strings.ReplaceAll("TERM="+term+" "+ctl+" top "+args+then, "'", `'\''`)+"'")
	}
	flow := "icmp"

	for _, term := range []string{"xterm", "screen", "linux"} {
		t.Run(term, func(t *testing.T) {
			run(term, "--interval 200ms")
			x.wait("[1 ports 4]", "every 200ms", "NOT UP", p.c1.Veth, "interface late does not exist", "? help")
			x.keys("4")
			x.wait("[4 flows", flow, "10.0.0.1", "10.0.0.2")
			x.keys("Tab")
			x.wait("[5 workers", "BATCH", "BUSY")
			x.keys("?")
			x.wait("any key: back")
			x.keys("x", "1", "/", p.c2.Veth, "Enter")
			x.wait("only "+p.c2.Veth, "? help")
			x.keys("q")
			x.wait("status=0", "\nicanon")
		})
	}

	t.Run("resized", func(t *testing.T) {
		run("screen", "--interval 200ms")
		x.wait("[1 ports 4]")
		x.do("resize-window", "-x", "120", "-y", "50")
		x.wait("[1 ports 4]", "WORKER", flow, "TYPE")
		x.do("resize-window", "-x", "30", "-y", "8")
		x.wait("vswitch on", "…")
		x.do("resize-window", "-x", "80", "-y", "24")
		x.wait("+- pace")
	})

	t.Run("the daemon is lost", func(t *testing.T) {
		p.d.Stop()
		x.wait("LOST, trying again", p.c1.Veth)
		p.d.Start()
		lab.Eventually(t, patient, func() error {
			if text := x.do("capture-pane", "-p"); strings.Contains(text, "LOST") {
				return fmt.Errorf("still lost:\n%s", text)
			}
			return nil
		})
	})

	t.Run("terminated", func(t *testing.T) {
		shell := strings.TrimSpace(x.do("display-message", "-p", "#{pane_pid}"))
		out, err := exec.Command("ps", "--ppid", shell, "-o", "pid=").Output()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			t.Fatalf("children of %s: %q", shell, out)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		x.wait("status=0", "\nicanon")
	})

	t.Run("dumb", func(t *testing.T) {
		run("dumb", "")
		x.wait(`TERM is "dumb"`, "top --once", "status=1")
	})

	t.Run("drops --watch", func(t *testing.T) {
		x.do("respawn-window", "-k", "sh -c 'trap : INT; "+ctl+" drops --watch --interval 200ms"+strings.ReplaceAll(then, "'", `'\''`)+"'")
		x.wait("every 200ms")
		p.d.Ctl("set-port", p.c1.Veth, "tag=7") // in which nobody else is
		x.wait("no-output", "last: "+p.c2.MAC.String(), "1 of ", " happening now")
		x.keys("C-c")
		x.wait("status=0")
		p.d.Ctl("set-port", p.c1.Veth, "tag=")
	})

	t.Run("once", func(t *testing.T) {
		var d struct {
			Ports []struct {
				Port     string
				RxFrames float64 `json:"rx_frames"`
			}
		}
		p.d.CtlJSON(&d, "top", "br0", "--once", "--interval", "500ms")
		for _, port := range d.Ports {
			if port.Port == p.c1.Veth && port.RxFrames >= 5 && port.RxFrames < 200 {
				return
			}
		}
		t.Errorf("%+v", d)
	})
}
