package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cage is where a container engine of a lab lives. An engine starts processes that are
// meant to outlive it (containers, and those that watch over them), and writes to places
// that cannot be moved by a flag; so a cage is a mount namespace, where those places are
// the lab's own, and a cgroup that no process leaves: both engines take the cgroup for
// the root of all cgroups, because it is that of their cgroup namespace.
//
// The hierarchy is always cgroup2, which every kernel since 4.5 can mount beside cgroup v1
// (then without controllers, so limits of containers do nothing). It is mounted in the
// cage only.
//
// A guard waits for the end of the cage or of the test, however it comes, and kills all
// that is in the cgroup. With the last process the mounts end, too.
type cage struct {
	host  *Host
	dir   string // the lab's; short enough for sockets
	group string // the name of its cgroup
	guard int    // process id of the guard, whose mount namespace is the cage's

	alive *os.File // the guard kills when nobody holds this open any more
	over  *os.File // reads the end when the guard has ended
}

// mounted is what a cage has of its own, by what its directory below the cage's is called.
var mounted = map[string]string{
	"run":  "/run/docker", // plugins
	"etc":  "/etc/docker",
	"cd":   "/run/containerd", // the shims' sockets
	"ns":   "/run/netns",      // podman's namespaces
	"crun": "/run/crun",
	"cni":  "/var/lib/cni",
	"shm":  "/dev/shm", // podman's locks
}

// cageSetup makes a cage and leaves the guard. $0 is its directory, $1 the cgroup's name;
// descriptor 0 is alive, 3 is over.
const cageSetup = `set -e
mkdir "$0/cg"
mount -t cgroup2 cgroup2 "$0/cg"
mkdir "$0/cg/$1" "$0/cg/$1/daemons"
mount -t sysfs sysfs /sys
touch "$0/cgroupns"
sh -ec 'echo $$ >"$0/cg/$1/cgroup.procs"; exec unshare --cgroup sh -ec "
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount --bind /proc/self/ns/cgroup \"\$0/cgroupns\"" "$0"' "$0" "$1"
while read -r from to; do
	mkdir -p "$to"
	mount --bind "$0/$from" "$to"
done <"$0/mounts"
exec 4<&0 </dev/null
setsid sh -c '
	echo $$ >"$0/guard"
	read -r _ <&4
	for try in $(seq 500); do
		pids=$(find "$0/cg/$1" -name cgroup.procs -exec cat {} + 2>/dev/null)
		test -n "$pids" || break
		kill -9 $pids 2>/dev/null
		sleep 0.02
	done
	find "$0/cg/$1" -depth -type d -exec rmdir {} + 2>/dev/null
	test ! -e "$0/cg/$1"
' "$0" "$1" >/dev/null 2>&1 &
while test ! -s "$0/guard"; do sleep 0.01; done
`

// cageEnter starts a command in a cage: $0 is its directory, $1 the cgroup's name. It
// stays one process: each of these becomes the next. No process is in the cage's root
// cgroup, where it would keep engines from passing controllers on.
const cageEnter = `echo $$ >"$0/cg/$1/daemons/cgroup.procs" && shift && exec nsenter "--cgroup=$0/cgroupns" "$@"`

// newCage makes a cage whose directory's name begins with letter.
func (h *Host) newCage(letter string) (*cage, error) {
	dir, err := os.MkdirTemp(h.lab.dir, letter)
	if err != nil {
		return nil, err
	}
	c := &cage{host: h, dir: dir, group: h.lab.name + "-" + filepath.Base(dir)}
	var list strings.Builder
	for from, to := range mounted {
		if err := os.Mkdir(filepath.Join(dir, from), 0o755); err != nil {
			return nil, err
		}
		fmt.Fprintln(&list, from, to)
	}
	if err := os.WriteFile(filepath.Join(dir, "mounts"), []byte(list.String()), 0o644); err != nil {
		return nil, err
	}
	aliveR, aliveW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer aliveR.Close()
	overR, overW, err := os.Pipe()
	if err != nil {
		aliveW.Close()
		return nil, err
	}
	defer overW.Close()
	c.alive, c.over = aliveW, overR
	p, err := h.start([]string{"unshare", "--mount", "sh", "-c", cageSetup, dir, c.group}, func(cmd *exec.Cmd) {
		cmd.Stdin = aliveR
		cmd.ExtraFiles = []*os.File{overW}
	})
	if err == nil {
		_, err = p.finish(20 * time.Second)
	}
	overW.Close()
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(filepath.Join(dir, "guard")); err == nil {
			c.guard, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a cage: %w", err), c.close())
	}
	return c, nil
}

// start starts a command in the cage.
func (c *cage) start(command []string, change func(*exec.Cmd)) (*Proc, error) {
	enter := []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", c.guard), "sh", "-c", cageEnter, c.dir, c.group}
	return c.host.start(append(enter, command...), change)
}

// processes lists those of the cage.
func (c *cage) processes() (pids []int) {
	// The guard's root is in the mount namespace of the cage.
	root := filepath.Join("/proc", strconv.Itoa(c.guard), "root", c.dir, "cg", c.group)
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" {
			text, _ := os.ReadFile(path)
			for line := range strings.Lines(string(text)) {
				if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
					pids = append(pids, pid)
				}
			}
		}
		return nil
	})
	return pids
}

// close kills all that is in the cage, and waits for the end of the guard. It may be
// called again.
func (c *cage) close() error {
	if c.alive == nil {
		return nil
	}
	c.alive.Close()
	c.alive = nil
	defer c.over.Close()
	// Reads nothing but the end, when the guard and all of its children have ended.
	c.over.SetReadDeadline(time.Now().Add(15 * time.Second))
	if _, err := c.over.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("close the cage of %s: processes %v do not end", c.group, c.processes())
	}
	return nil
}

// engine is a process of a cage that is started again and again.
type engine struct {
	cage    *cage
	name    string // what errors call it
	command []string
	env     []string
	answers func() error
	log     *Tail
	proc    *Proc // nil when stopped
}

const engineLimit = 30 * time.Second // of a start or a stop

func (e *engine) start() error {
	if e.proc != nil {
		return fmt.Errorf("start %s: it runs already as process %d", e.name, e.proc.PID())
	}
	var err error
	e.proc, err = e.cage.start(e.command, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), e.env...)
		cmd.Stdout, cmd.Stderr = e.log, e.log
	})
	if err != nil {
		return err
	}
	err = Wait(engineLimit, func() error {
		select {
		case <-e.proc.Done():
			return nil // judged below
		default:
		}
		return e.answers()
	})
	select {
	case <-e.proc.Done():
		err = fmt.Errorf("it ended with status %d", e.proc.ExitCode())
		e.proc = nil
	default:
	}
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", e.name, err, lastLines(e.log.String(), 30))
	}
	return nil
}

// end stops the engine with a signal, and kills it when it does not stop in time.
func (e *engine) end(s unix.Signal) error {
	if e.proc == nil {
		return fmt.Errorf("stop %s: it does not run", e.name)
	}
	p := e.proc
	e.proc = nil
	p.Signal(s)
	select {
	case <-p.Done():
		return nil
	case <-time.After(engineLimit):
		p.Kill()
		return fmt.Errorf("stop %s: not within %v\n%s", e.name, engineLimit, lastLines(e.log.String(), 30))
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
