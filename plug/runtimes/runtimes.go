// Package runtimes knows who a container is: it asks Docker, Podman, containerd's state,
// ip-netns(8) and /proc for a container's network namespace, and tells when that changes.
// It makes nothing and changes nothing.
//
// Its one idea: what a runtime says and what it does not say are kept apart. "No such
// container" is an answer, on which a plug is taken away in the end. A runtime that hangs,
// is restarted, or answers what cannot be read has said nothing, and nobody is unplugged
// for that. Nor is a bare name, which might be that runtime's, taken for somebody else's.
//
// # Which path is a container's namespace
//
// It is /proc/PID/ns/net of the container's first process, and not the SandboxKey that
// Docker and Podman name. That is a mount below the runtime's own directory: it is an empty
// file for whoever does not share the runtime's mount namespace, and it stays when a
// runtime is killed. The path below /proc is right wherever the runtime's mounts are, for
// rootless Podman too, and is gone with the process.
package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
)

// Options say where runtimes are.
type Options struct {
	Docker     string        // API socket; /run/docker.sock
	Podman     string        // API socket; /run/podman/podman.sock
	Containerd string        // state directory; /run/containerd
	NetNS      string        // directory of named namespaces; /run/netns
	Timeout    time.Duration // for one answer; 3 s
	Log        *slog.Logger
}

// Container is what is known of one.
type Container struct {
	Ref     config.ContainerRef
	ID      string // the runtime's; "" where there is none
	NetNS   string // path of its network namespace; "" when it does not run
	PID     int    // of its first process; 0: none, or not known
	Running bool
	Names   []string // names and aliases that the runtime itself knows it by, its own name first
	// SharesWith is the container whose namespace it uses (docker run --network container:x);
	// the zero ref where it has its own. NetNS is then that one's.
	SharesWith config.ContainerRef
	// Host says that it uses the host's own namespace, where nothing can be plugged.
	Host bool

	by process // by which NetNS is found; the zero process where that is no process's
}

// Errors that a caller tells apart, with errors.Is. Their messages name container and
// runtime. An error that is neither says that the word is ambiguous, or no container; it,
// too, is no reason to unplug.
var (
	ErrUnknown  = errors.New("no such container")       // the runtime answers that it has none
	ErrNoAnswer = errors.New("runtime does not answer") // nothing is known: never a reason to unplug
)

// Runtimes is all of them.
//
// Thread-safety: safe for concurrent use.
type Runtimes struct {
	docker, podman *engine
	containerd     string // directory of tasks, by containerd's namespaces
	netns          string
	log            *slog.Logger
}

// New asks nobody yet.
func New(o Options) *Runtimes {
	or := func(s, without string) string {
		if s == "" {
			return without
		}
		return s
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Runtimes{
		docker:     newEngine(config.DockerContainer, or(o.Docker, "/run/docker.sock"), o.Timeout),
		podman:     newEngine(config.PodmanContainer, or(o.Podman, "/run/podman/podman.sock"), o.Timeout),
		containerd: tasksBelow(or(o.Containerd, "/run/containerd")),
		netns:      or(o.NetNS, "/run/netns"),
		log:        o.Log,
	}
}

// kind is one way to be a container.
type kind struct {
	name  string
	where string // it is looked for, in an error
	// find takes a name or ID as a user gives it. It is there to be asked, unless it is
	// errAbsent.
	find func(context.Context, string) (Container, error)
	near func(context.Context) []string // names that there are, for a suggestion
}

// errAbsent says that there is no such runtime on this machine.
var errAbsent = errors.New("not there")

// kinds are those among which a bare name is looked for, in order.
func (r *Runtimes) kinds() []kind {
	return []kind{
		{r.docker.kind, r.docker.socket, r.docker.find, r.docker.names},
		{r.podman.kind, r.podman.socket, r.podman.find, r.podman.names},
		{config.ContainerdContainer, r.containerd, r.findTask, r.taskNames},
		{config.NetNSContainer, r.netns, r.findNetNS, r.netnsNames},
	}
}

// Find is who a user means by a word: with a kind in front or a path, exactly that; a bare
// name is looked for among Docker, Podman, containerd, named namespaces, in that order;
// digits alone are no pid. The ref is canonical (pid with its start).
//
// Docker takes the beginning of an ID for a name, however short. A bare word is such a
// beginning only when it has leastID digits and nobody is called exactly that.
func (r *Runtimes) Find(ctx context.Context, word string) (Container, error) {
	ref, err := config.ParseContainer(word)
	if err != nil {
		return Container{}, fmt.Errorf("find container %q: %w", word, err)
	}
	if pid, ok := processOf(ref); ok {
		ref = pid
	}
	if ref.Kind != "" {
		return r.findKind(ctx, ref)
	}
	var first *Container // by the beginning of its ID
	var looked []string
	for _, k := range r.kinds() {
		c, err := k.find(ctx, ref.Name)
		switch {
		case errors.Is(err, errAbsent):
			continue
		case errors.Is(err, ErrUnknown):
			looked = append(looked, k.name+" ("+k.where+")")
			continue
		case err != nil:
			return Container{}, fmt.Errorf("find container %q: %w; write the kind in front of the name, such as %s:%s, if it is not %s's",
				word, err, config.NetNSContainer, word, k.name)
		}
		if c.answersTo(ref.Name) {
			return c, nil
		}
		if first == nil && len(ref.Name) >= leastID {
			first = &c
		}
	}
	if first != nil {
		return *first, nil
	}
	where := ", and there is no runtime here to ask"
	if len(looked) > 0 {
		where = ": looked in " + strings.Join(looked, ", ")
	}
	if strings.Trim(ref.Name, "0123456789") == "" {
		where += "; a process is pid:" + ref.Name
	}
	return Container{}, fmt.Errorf("%w %q%s%s", ErrUnknown, word, where, r.suggest(ctx, ref.Name, r.kinds()))
}

// findKind is Find of a word that says its kind.
func (r *Runtimes) findKind(ctx context.Context, ref config.ContainerRef) (Container, error) {
	for _, k := range r.kinds() {
		if k.name != ref.Kind {
			continue
		}
		c, err := k.find(ctx, ref.Name)
		switch {
		case errors.Is(err, errAbsent):
			err = fmt.Errorf("find container %s: %w: there is no %s", ref, ErrNoAnswer, k.where)
		case errors.Is(err, ErrUnknown):
			err = fmt.Errorf("%w%s", err, r.suggest(ctx, ref.Name, []kind{k}))
		case err != nil:
			err = fmt.Errorf("find container %s: %w", ref, err)
		}
		return c, err
	}
	return r.lookHere(ref)
}

// processOf is the process that a path below /proc names: as a path it would be the next
// process's that gets the number.
func processOf(ref config.ContainerRef) (pid config.ContainerRef, ok bool) {
	if ref.Kind != config.PathContainer {
		return ref, false
	}
	rest, below := strings.CutPrefix(ref.Name, "/proc/")
	number, net := strings.CutSuffix(rest, "/ns/net")
	if !below || !net || number == "" || strings.Trim(number, "0123456789") != "" {
		return ref, false
	}
	return config.ContainerRef{Kind: config.PIDContainer, Name: number}, true
}

// Look is what a container is like now. The name of a ref is a whole name, or an ID of at
// least shortID digits: what a name once was the beginning of an ID of is somebody else.
func (r *Runtimes) Look(ctx context.Context, ref config.ContainerRef) (Container, error) {
	for _, k := range r.kinds() {
		if k.name != ref.Kind {
			continue
		}
		c, err := k.find(ctx, ref.Name)
		switch {
		case errors.Is(err, errAbsent):
			return Container{}, fmt.Errorf("look at %s: %w: there is no %s", ref, ErrNoAnswer, k.where)
		case err != nil:
			return Container{}, fmt.Errorf("look at %s: %w", ref, err)
		case !c.answersTo(ref.Name):
			return Container{}, fmt.Errorf("look at %s: %w: %s is the beginning of another's ID", ref, ErrUnknown, ref.Name)
		}
		return c, nil
	}
	return r.lookHere(ref)
}

// lookHere is for what needs no runtime.
func (r *Runtimes) lookHere(ref config.ContainerRef) (c Container, err error) {
	switch ref.Kind {
	case config.PIDContainer:
		c, err = lookProcess(ref)
	case config.PathContainer:
		c, err = lookPath(ref)
	default:
		err = errors.New("it is plugged by its runtime, and cannot be looked at")
	}
	if err != nil {
		return Container{}, fmt.Errorf("look at %s: %w", ref, err)
	}
	return c, nil
}

// How many digits of an ID are enough.
const (
	shortID = 12 // for a name: it is what runtimes show
	leastID = 4  // for a bare word that a user types
)

// answersTo says whether word is the container's name, or enough of its ID.
func (c *Container) answersTo(word string) bool {
	return word == c.Ref.Name || word == c.ID || len(word) >= shortID && strings.HasPrefix(c.ID, word)
}

// isGone says whether an error of netnsAt is one of what is there, and not one of looking.
func isGone(err error) bool {
	for _, e := range []error{errNoNetNS, fs.ErrNotExist, unix.ESRCH, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// process is one that has, or had, its number since start.
type process struct {
	pid   int
	start uint64
}

// Still says whether the process by whose number NetNS is found is the one that was looked
// at. Asked when the namespace is open, it says whose that is: the number of a process that
// ended may be another container's by now.
func (c *Container) Still() bool {
	if c.by.pid == 0 {
		return true // it is found by its name: it is whose name it is
	}
	start, err := processStart(c.by.pid)
	return err == nil && start == c.by.start
}

// settle fills in what the kernel knows: whether the process of a running container is
// still there, and whether it is in a namespace of its own. The error is ErrNoAnswer.
func (c *Container) settle() error {
	path := c.NetNS
	if c.PID > 0 && path == "" {
		path = procNetNS(c.PID)
	}
	if path == procNetNS(c.PID) {
		c.by.pid = c.PID
		c.by.start, _ = processStart(c.PID) // before its namespace is looked at, see Still
	}
	ns, err := netnsAt(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the kernel does not say what %s is (needs CAP_SYS_PTRACE): %w", ErrNoAnswer, path, err)
	case isGone(err):
		c.Running, c.PID, c.NetNS = false, 0, ""
		return nil
	case err != nil: // such as too many open files: that says nothing of the container
		return fmt.Errorf("%w: look at %s: %w", ErrNoAnswer, path, err)
	}
	c.Running, c.NetNS = true, path
	if own, err := netnsAt("/proc/thread-self/ns/net"); err == nil && ns.sameNamespace(own) {
		c.Host = true
	}
	return nil
}
