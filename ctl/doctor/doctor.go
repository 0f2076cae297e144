// Package doctor looks over a switch and its host, and says what is wrong and how it is
// mended: what the daemon may do, its configuration, ports, tunnels, addresses and losses,
// and what others left behind. It changes nothing that forwards: what it makes to try
// something out is its own, and goes with it. What is true now is show's, and what
// happened to one address is why's.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// limit is how long all checks together take at most: what has not come to an
// end then could not be told.
const limit = api.MaxDoctor - 3*time.Second

// Host is what a doctor asks of the daemon that he looks over. All may be called from any
// goroutine.
type Host interface {
	Status(ctx context.Context, bridge string) (api.Status, error)
	Tunnels(ctx context.Context, bridge string) ([]api.TunnelStatus, error)
	Drops(ctx context.Context, bridge, port string) ([]api.Drop, error)
	Plugged(ctx context.Context, bridge string) ([]api.PlugStatus, error)
	Published(ctx context.Context, bridge string) ([]api.PublishStatus, error)

	// Desired are the bridges that there are to be, or the one of that name; any other
	// name is an error.
	Desired(bridge string) ([]config.Bridge, error)
	// StoreWarnings are those of the configuration's store, which are among Status's.
	StoreWarnings() []string
	// ContainerWarnings are those of gateways and container runtimes, which are, too.
	ContainerWarnings() []string
	// Conflicts are addresses that two stations claimed since then.
	Conflicts(bridge string, since time.Time) []api.Neighbor
	// Echo sends a frame of n bytes, from its destination address on, by a tunnel port,
	// and reports whether the other end's vswitch had it whole within the time, and how
	// long that took.
	Echo(ctx context.Context, port string, n int, within time.Duration) (took time.Duration, ok bool)
	// IsPort reports whether an interface that was marked for a port is that port's still.
	IsPort(port string, l ports.Link) bool
	// IsStopped reports whether an interface is one that the daemon cut off from the host.
	IsStopped(index int) bool
	// Losses are counters that say nothing of when they counted: packets that tunnels'
	// endpoints missed, by endpoint, and bridges' MAC tables, by bridge.
	Losses() (missed map[string]uint64, tables map[string]Table)
}

// Table is what is told of a bridge's MAC table.
type Table struct {
	Size    int    // entries that it may have
	Evicted uint64 // entries that gave way to others
}

// Options say whom a doctor looks over.
type Options struct {
	Host     Host
	Switch   *vswitch.Switch
	Stopper  *ports.Stopper
	Instance string // the switch's identity, by which it knows its own interfaces
}

// Doctor is one switch's. Close ends it.
//
// Thread-safety: safe for concurrent use.
type Doctor struct {
	o       Options
	history lossHistory
	visits  sync.Mutex // held during a visit
}

// New takes away what a doctor of this switch left behind that was killed.
func New(o Options) *Doctor {
	o.removeInterfaces()
	return &Doctor{o: o}
}

// Close waits for a visit to end, and allows no other.
func (d *Doctor) Close() { d.visits.Lock() }

// Visit looks at everything. A visit while another is under way is refused.
func (d *Doctor) Visit(ctx context.Context, q api.DoctorQuery) (api.Doctor, error) {
	bridges, err := d.o.Host.Desired(q.Bridge)
	if err != nil {
		return api.Doctor{}, err
	}
	if !d.visits.TryLock() {
		return api.Doctor{}, &api.Error{Status: 409, Message: "another doctor is under way; it takes some seconds: try again"}
	}
	defer d.visits.Unlock()
	status, err := d.o.Host.Status(ctx, q.Bridge)
	if err != nil {
		return api.Doctor{}, err
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	x := &visit{Doctor: d, query: q, bridges: bridges, status: status}
	d.o.removeInterfaces() // of one that was killed
	x.checkHost()
	x.checkConfiguration()
	x.checkPorts()
	x.checkContainers(ctx)
	x.checkAddresses()
	x.checkLosses(ctx)
	d.look(begun)
	x.checkLeftovers()
	var running sync.WaitGroup
	for _, slow := range []func(context.Context){x.checkKernel, x.checkTunnels, x.checkChecksums, x.checkPeer} {
		running.Go(func() { slow(ctx) }) // ended by ctx
	}
	running.Wait()
	return x.result(time.Since(begun)), nil
}

// visit is one look at everything.
//
// Thread-safety: add may be called from any goroutine; the rest does not change.
type visit struct {
	*Doctor
	query   api.DoctorQuery
	bridges []config.Bridge // that are to be looked at
	status  api.Status

	mu    sync.Mutex
	found []api.Finding
}

func (x *visit) add(group, check, subject, status, what, fix string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.found = append(x.found, api.Finding{Group: group, Check: check, Subject: subject, Status: status, What: what, Fix: fix})
}

// ok, warn, fail and unknown add a finding of their status.
func (x *visit) ok(group, check, subject, what string, args ...any) {
	x.add(group, check, subject, api.StatusOK, fmt.Sprintf(what, args...), "")
}

func (x *visit) warn(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusWarn, fmt.Sprintf(what, args...), fix)
}

func (x *visit) fail(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusFail, fmt.Sprintf(what, args...), fix)
}

func (x *visit) unknown(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusUnknown, "could not tell: "+fmt.Sprintf(what, args...), fix)
}

// result puts what was found in order: by group, the worst first, and else as it was
// found.
func (x *visit) result(took time.Duration) api.Doctor {
	x.mu.Lock()
	defer x.mu.Unlock()
	res := api.Doctor{Findings: x.found, Took: took}
	rank := func(f api.Finding) int {
		return 4*slices.Index(api.DoctorGroups, f.Group) + slices.Index([]string{api.StatusFail, api.StatusWarn, api.StatusUnknown, api.StatusOK}, f.Status)
	}
	slices.SortStableFunc(res.Findings, func(a, b api.Finding) int { return rank(a) - rank(b) })
	for _, f := range res.Findings {
		switch f.Status {
		case api.StatusOK:
			res.OK++
		case api.StatusWarn:
			res.Warn++
		case api.StatusFail:
			res.Fail++
		default:
			res.Unknown++
		}
	}
	return res
}
