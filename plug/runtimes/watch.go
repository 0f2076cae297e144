package runtimes

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"vswitch/ctl/config"
)

const (
	lookEvery  = 200 * time.Millisecond // at what sends no events, and at what is wanted
	maxPending = 256                    // changes that were not told yet; more are told as the zero ref
)

// Watch calls changed, from one goroutine at a time, for each container that started, died,
// was removed or renamed, until ctx ends; with the zero ref when much may have changed (a
// runtime came back): look at all then. wanted lists the refs that anybody cares about,
// for those kinds that send no events and are looked at every 200 ms.
//
// An engine's events are listened to only while one of its containers is wanted: to connect
// would start an engine that systemd starts on demand, and keep it running.
func (r *Runtimes) Watch(ctx context.Context, wanted func() []config.ContainerRef, changed func(config.ContainerRef)) {
	w := newWatch(r)
	defer w.end()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		w.look(ctx, wanted())
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-w.news.some:
				for _, c := range w.news.take() {
					for _, ref := range c.refs(wanted) {
						if ctx.Err() != nil {
							return
						}
						changed(ref)
					}
				}
			case <-tick.C:
				waiting = false
			}
		}
	}
}

// watch is one call of Watch. Thread-safety: for its goroutine, except news.
type watch struct {
	r       *Runtimes
	news    *news
	seen    map[config.ContainerRef]sight
	streams map[*engine]context.CancelFunc // those that run
	ended   sync.WaitGroup
}

func newWatch(r *Runtimes) *watch {
	return &watch{r: r, news: newNews(), seen: make(map[config.ContainerRef]sight), streams: make(map[*engine]context.CancelFunc)}
}

func (w *watch) end() {
	for _, stop := range w.streams {
		stop()
	}
	w.ended.Wait()
}

// incarnation is what is another one when a container is another one. The zero one is
// none.
type incarnation struct {
	identity
	pid   int
	start uint64
}

// sight is what was seen of a container. The glance was taken first: what changed since is
// another one the next time.
type sight struct {
	glance
	incarnation
}

// look starts and stops listening to engines, and looks at what sends no events.
func (w *watch) look(ctx context.Context, wanted []config.ContainerRef) {
	for _, e := range []*engine{w.r.docker, w.r.podman} {
		stop, runs := w.streams[e]
		switch want := slices.ContainsFunc(wanted, func(ref config.ContainerRef) bool { return ref.Kind == e.kind }); {
		case want && !runs:
			inner, stop := context.WithCancel(ctx)
			w.streams[e] = stop
			w.ended.Go(func() { // ends with inner
				e.listen(inner, w.r.log, w.news.add)
			})
		case !want && runs:
			stop()
			delete(w.streams, e)
		}
	}
	now := make(map[config.ContainerRef]bool)
	for _, ref := range wanted {
		switch ref.Kind {
		case config.ContainerdContainer, config.NetNSContainer, config.PIDContainer, config.PathContainer:
		default:
			continue
		}
		now[ref] = true
		was, known := w.seen[ref]
		is := sight{glance: w.r.glance(ref, was.pid)}
		if known && is.glance == was.glance && is.glance != (glance{}) {
			continue
		}
		is.incarnation = w.r.incarnation(ref)
		w.seen[ref] = is
		// One that was not looked at before may have changed since its owner looked.
		if !known || is.incarnation != was.incarnation {
			w.news.add(change{ref, ""})
		}
	}
	for ref := range w.seen {
		if !now[ref] {
			delete(w.seen, ref)
		}
	}
}

// incarnation is what is there of ref now.
func (r *Runtimes) incarnation(ref config.ContainerRef) (is incarnation) {
	var c Container
	var err error
	if ref.Kind == config.ContainerdContainer {
		c, err = r.findTask(context.Background(), ref.Name)
	} else if ref.Kind == config.NetNSContainer {
		c, err = r.findNetNS(context.Background(), ref.Name)
	} else {
		c, err = r.lookHere(ref)
	}
	if err != nil || !c.Running {
		return incarnation{}
	}
	is.identity, _ = netnsAt(c.NetNS)
	if is.pid = c.PID; is.pid != 0 {
		is.start, _ = processStart(is.pid)
	}
	return is
}

// glance is as much of an incarnation as a call or two tell: no two incarnations look the
// same at a glance, and one may look different each time. The zero one is none.
type glance struct {
	process   mark // of a process's directory below /proc
	namespace mark
}

// glance looks at ref, or at its process where there is one. A process that has ended has no
// namespace, so there is no glance of it.
func (r *Runtimes) glance(ref config.ContainerRef, pid int) (g glance) {
	var ok bool
	switch {
	case ref.Kind == config.NetNSContainer:
		g.namespace, ok = markOf(filepath.Join(r.netns, ref.Name))
	case ref.Kind == config.PathContainer:
		g.namespace, ok = markOf(ref.Name)
	case pid != 0:
		if g.namespace, ok = markOf(procNetNS(pid)); ok {
			g.process, ok = markOf("/proc/" + strconv.Itoa(pid))
		}
	}
	if !ok {
		return glance{}
	}
	return g
}

// change is news of one container; the zero change of all.
type change struct {
	ref config.ContainerRef
	id  string // where it is known
}

// refs is the container by its name, and by as much of its ID as somebody calls it.
func (c change) refs(wanted func() []config.ContainerRef) []config.ContainerRef {
	refs := []config.ContainerRef{c.ref}
	if c.id == "" {
		return refs
	}
	called := Container{Ref: c.ref, ID: c.id}
	for _, w := range wanted() {
		if w.Kind == c.ref.Kind && w != c.ref && called.answersTo(w.Name) {
			refs = append(refs, w)
		}
	}
	return refs
}

// news is what changed and was not told yet. What changes twice is told once.
//
// Thread-safety: safe for concurrent use.
type news struct {
	some chan struct{} // holds one when there is something

	mu      sync.Mutex
	changes []change // in order; the zero change alone stands for all
}

func newNews() *news { return &news{some: make(chan struct{}, 1)} }

func (n *news) add(c change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := change{}
	switch {
	case slices.Contains(n.changes, c), slices.Contains(n.changes, all):
		return
	case c == all, len(n.changes) >= maxPending:
		n.changes = append(n.changes[:0], all)
	default:
		n.changes = append(n.changes, c)
	}
	select {
	case n.some <- struct{}{}:
	default:
	}
}

func (n *news) take() []change {
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := n.changes
	n.changes = nil
	return changes
}
