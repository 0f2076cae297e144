package ctl_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// docs/debugging.md tells stories of containers that cannot reach each other. Each is
// run here as it is written: what stands behind a prompt is typed, where it says, and
// what it is said to answer must be answered.

// story is one section of the page.
type story struct {
	title string
	lines []line
}

// line is a command, and what of its output the page shows: each in its order,
// whatever stands between, "…" for anything.
type line struct {
	at, command string
	shown       []string
}

// What is typed stands behind a prompt that names where: a host, or a container.
var typed = regexp.MustCompile(`^([a-z]+)\$ (.+)$`)

// stories reads the page: a story is a heading with a number, its commands stand in
// fenced blocks.
func stories(t *testing.T) (all []story) {
	t.Helper()
	page, err := os.ReadFile("../docs/debugging.md")
	if err != nil {
		t.Fatal(err)
	}
	fenced := false
	for _, text := range strings.Split(string(page), "\n") {
		if strings.HasPrefix(text, "```") {
			fenced = !fenced
			continue
		}
		if title, ok := strings.CutPrefix(text, "## "); ok && regexp.MustCompile(`^\d+\. `).MatchString(title) {
			all = append(all, story{title: title})
			continue
		}
		if !fenced || len(all) == 0 || strings.TrimSpace(text) == "" {
			continue
		}
		s := &all[len(all)-1]
		if m := typed.FindStringSubmatch(text); m != nil {
			s.lines = append(s.lines, line{at: m[1], command: m[2]})
		} else if len(s.lines) > 0 {
			l := &s.lines[len(s.lines)-1]
			l.shown = append(l.shown, text)
		}
	}
	return all
}

// stage is where a story is played: two hosts, with the containers web 10.0.0.1 and db
// 10.0.0.2, each by itself on a host of its own (apart), or both on host a.
type stage struct {
	*lab.Lab
	u       *lab.Underlay
	hosts   map[string]*lab.Host
	daemons map[string]*lab.Daemon
	places  map[string]*lab.Namespace // by prompt
	web     *lab.Container
}

func newStage(t *testing.T, apart bool) *stage {
	s := &stage{Lab: lab.New(t), hosts: map[string]*lab.Host{}, daemons: map[string]*lab.Daemon{}, places: map[string]*lab.Namespace{}}
	s.u = s.Underlay("net", lab.UnderlayOptions{})
	for i, name := range []string{"a", "b"} {
		h := s.Host(name)
		s.u.Join(h, fmt.Sprintf("192.0.2.%d/24", i+1))
		d := h.Daemon(lab.DaemonOptions{})
		d.Ctl("add-br", "br0")
		s.hosts[name], s.daemons[name], s.places[name] = h, d, h.Namespace
	}
	s.web = s.container("a", "web", "10.0.0.1")
	if apart {
		s.container("b", "db", "10.0.0.2")
	} else {
		s.container("a", "db", "10.0.0.2")
	}
	return s
}

func (s *stage) container(host, name, addr string, options ...lab.ContainerOption) *lab.Container {
	c := s.hosts[host].Container(name, append(options, lab.Addr(addr+"/24"))...)
	s.places[name] = c.Namespace
	s.daemons[host].Ctl("add-port", "br0", c.Veth)
	return c
}

// tunnel joins the hosts by VXLAN.
func (s *stage) tunnel(options ...string) {
	for host, remote := range map[string]string{"a": "192.0.2.2", "b": "192.0.2.1"} {
		s.daemons[host].Ctl(append([]string{"add-port", "br0", "t0", "type=vxlan", "key=42", "remote_ip=" + remote}, options...)...)
	}
}

// play types a story's commands. Those of vswitchctl go to the daemon of their host.
func (s *stage) play(t *testing.T, lines []line) {
	t.Helper()
	for _, l := range lines {
		var said string // with -v: for the page
		// What a command tells of may still be on its way: who looks again sees it.
		lab.Eventually(t, patient, func() error {
			out := s.run(t, l)
			said = out
			if err := shows(out, l.shown); err != nil {
				return fmt.Errorf("%s$ %s\n%s\n%w", l.at, l.command, out, err)
			}
			return nil
		})
		t.Logf("%s$ %s\n%s", l.at, l.command, said)
	}
}

func (s *stage) run(t *testing.T, l line) string {
	t.Helper()
	place := s.places[l.at]
	if place == nil {
		t.Fatalf("the page types at %q: there is no such place", l.at)
	}
	if args, ok := strings.CutPrefix(l.command, "vswitchctl "); ok {
		d := s.daemons[l.at]
		if d == nil {
			t.Fatalf("the page types vswitchctl in a container: %s", l.command)
		}
		stdout, stderr, _ := d.CtlErr(words(args)...)
		return stdout + stderr
	}
	if l.command == "systemctl stop vswitchd" {
		s.daemons[l.at].Stop()
		return ""
	}
	if l.command == "systemctl start vswitchd" {
		s.daemons[l.at].Start()
		return ""
	}
	out, _ := place.Exec("sh", "-c", l.command)
	return out
}

// words splits a command as a shell does that knows single quotes.
func words(s string) (all []string) {
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// shows tells which of the lines is missing in a command's output. Blanks count as one.
func shows(out string, lines []string) error {
	rest := strings.Join(strings.Fields(out), " ")
	for _, want := range lines {
		parts := strings.Split(want, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(strings.Join(strings.Fields(parts[i]), " "))
		}
		at := regexp.MustCompile(strings.Join(parts, ".*?")).FindStringIndex(rest)
		if at == nil {
			return fmt.Errorf("does not show %q", want)
		}
		rest = rest[at[1]:]
	}
	return nil
}

func TestStories(t *testing.T) {
	stages := map[string]func(t *testing.T) *stage{
		"1. Wrong VLAN": func(t *testing.T) *stage {
			s := newStage(t, false)
			s.daemons["a"].Ctl("set-port", "veth-web", "tag=10")
			s.daemons["a"].Ctl("set-port", "veth-db", "tag=20")
			return s
		},
		"2. MTU too small": func(t *testing.T) *stage {
			s := newStage(t, true)
			s.tunnel()
			return s
		},
		"6. A hole on the way": func(t *testing.T) *stage {
			s := newStage(t, true)
			s.tunnel()
			s.u.MustExec("ip", "link", "set", "dev", s.u.Port(s.hosts["b"]), "mtu", "1400")
			waitPort(t, s.daemons["a"], "t0", api.PortUp)
			return s
		},
		"3. The other host is down": func(t *testing.T) *stage {
			s := newStage(t, true)
			s.tunnel("bfd_enable=true", "bfd_min_rx=100", "bfd_min_tx=100")
			waitPort(t, s.daemons["a"], "t0", api.PortUp)
			return s
		},
		"4. Two with one MAC address": func(t *testing.T) *stage {
			s := newStage(t, false)
			clone := s.container("a", "clone", "10.0.0.3")
			clone.MustExec("ip", "link", "set", "eth0", "address", s.web.MAC.String())
			return s
		},
		"5. A full table": func(t *testing.T) *stage {
			s := newStage(t, false)
			s.container("a", "cache", "10.0.0.3")
			s.container("a", "queue", "10.0.0.4")
			s.daemons["a"].Ctl("set-br", "br0", "mac-table-size=1")
			return s
		},
	}
	all := stories(t)
	if len(all) != len(stages) {
		t.Errorf("docs/debugging.md tells %d stories, %d are known here", len(all), len(stages))
	}
	for _, st := range all {
		t.Run(st.title, func(t *testing.T) {
			set := stages[st.title]
			if set == nil {
				t.Fatal("nobody knows how to set this stage")
			}
			if len(st.lines) == 0 {
				t.Fatal("nothing is typed")
			}
			t.Parallel()
			set(t).play(t, st.lines)
		})
	}
}
