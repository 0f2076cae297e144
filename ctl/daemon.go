package ctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/doctor"
	"vswitch/ctl/store"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// Options say how a daemon runs.
type Options struct {
	RunDir, StateDir string
	Version          string
	Workers          int           // forwarding threads
	Buffers          int           // frame buffers a worker
	BusyPoll         time.Duration // 0: block at once
	Recorder         vswitch.RecorderOptions
	RxRings          int // bytes that receive rings may take which no option asked for; see DefaultRxRings
	Stop             ports.StopKind
	CaptureDirs      []string // where captures may be written; empty: DefaultCaptureDirs
	Log              *slog.Logger
	LogLevel         *slog.LevelVar // that Log's handler looks at; nil: the level is fixed
	Plug             PlugOptions
}

// Daemon is one switch with its desired configuration.
//
// Thread-safety: any method may be called from any goroutine; Close once, last.
type Daemon struct {
	version    api.Version
	log        *slog.Logger
	store      *store.Store
	sw         *vswitch.Switch
	stopper    *ports.Stopper
	reconciler *reconciler
	hub        *hub
	logLevel   *logLevel
	replays    replays
	probes     *prober
	doctor     *doctor.Doctor
	seen       seen // addresses, drops: why.go and its neighbours

	captures captures
	plugs    *plugs

	edit   sync.Mutex // one change at a time
	closed bool       // guarded by edit

	// wentBack is the version that was not confirmed and that the machine has left
	// already, while the store has not; 0: none. Written with edit held.
	wentBack atomic.Uint64

	timerMu sync.Mutex // guards timer; taken after edit
	timer   *time.Timer

	cancel  context.CancelFunc
	running sync.WaitGroup

	spawning sync.Mutex // guards ending; taken last
	ending   bool       // nobody may be added to running
}

// spawn runs f in a goroutine for whose end Close waits; not at all once Close began. It is
// for who may be called by then: a request may outlive the server's shutdown.
func (d *Daemon) spawn(f func()) {
	d.spawning.Lock()
	defer d.spawning.Unlock()
	if !d.ending {
		d.running.Go(f)
	}
}

// New opens the state directory, makes what the stored document desires, and
// keeps it so. Only a store that holds no readable configuration, or belongs to
// another daemon, and a switch that cannot start are errors; ports that cannot
// come up are not.
func New(o Options) (*Daemon, error) {
	st, err := store.Open(o.StateDir, store.Options{})
	if err != nil {
		return nil, err
	}
	d := &Daemon{log: o.Log, store: st, hub: newHub(o.Log), logLevel: newLogLevel(o.Log, o.LogLevel), version: api.Version{
		Version: o.Version, API: 1, Go: runtime.Version(), Kernel: doctor.Kernel(), PID: os.Getpid(),
		Started: time.Now(), RunDir: o.RunDir, StateDir: o.StateDir,
	}}
	for _, w := range st.Warnings() {
		d.log.Warn(w)
	}
	// A worker blocks a thread in its wait; with its own P to come back to, beside
	// those of the rest, it never queues behind a request.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), o.Workers+2))
	boundGarbage()
	d.seen = newSeen(d.hub.tell)
	d.probes = newProber()
	d.seen.probes = d.probes.hear
	d.sw, err = vswitch.New(vswitch.Options{Workers: o.Workers, Buffers: o.Buffers, BusyPoll: o.BusyPoll, Recorder: o.Recorder, Notify: d.notify, Hear: d.hear})
	if err != nil {
		st.Close()
		return nil, err
	}
	id := d.instance(o.StateDir)
	d.stopper = ports.NewStopper(id, o.Stop)
	d.reconciler = newReconciler(d.sw, d.stopper, id, o.Workers, d.log, d.hub.tell)
	d.reconciler.rxRings.limit = o.RxRings
	d.reconciler.uplinks.open(o.StateDir, d.log)
	d.probes.begin(d.sw, d.reconciler, id)
	if err := d.openPlugs(o, id); err != nil {
		d.sw.Close()
		st.Close()
		return nil, err
	}
	d.reconciler.plugs = d
	d.doctor = doctor.New(doctor.Options{Host: examined{d}, Switch: d.sw, Stopper: d.stopper, Instance: id})
	d.captureDirs(o)
	if err := d.begin(); err != nil {
		d.plugs.close(d.log)
		d.sw.Close()
		st.Close()
		return nil, err
	}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	d.running.Go(func() { d.hub.run(ctx.Done()) })    // these eight end with
	d.running.Go(func() { d.reconciler.run(ctx) })    // ctx, by Close
	d.running.Go(func() { tidy(ctx) })                //
	d.running.Go(func() { d.watchDrops(ctx.Done()) }) //
	d.running.Go(func() { d.seen.macs.run(ctx.Done()) })
	d.running.Go(func() { d.keepLedger(ctx.Done()) })
	d.running.Go(func() { d.probes.run(ctx) })
	d.running.Go(func() { d.doctor.Run(ctx.Done()) })
	d.runPlugs(ctx)
	return d, nil
}

// DefaultCaptureDirs are where captures may be written when nobody says otherwise.
func DefaultCaptureDirs(stateDir string) []string {
	return []string{filepath.Join(stateDir, "captures"), "/tmp", "/var/tmp"}
}

// captureDirs tells the reconciler where captures may be written, and makes the
// directory that is meant for them.
func (d *Daemon) captureDirs(o Options) {
	dirs := o.CaptureDirs
	if len(dirs) == 0 {
		dirs = DefaultCaptureDirs(o.StateDir)
	}
	for _, dir := range dirs {
		if abs, err := filepath.Abs(dir); err == nil {
			d.reconciler.captureDirs = append(d.reconciler.captureDirs, abs)
		}
	}
	for _, dir := range []string{o.StateDir, o.RunDir} {
		if abs, err := filepath.Abs(dir); err == nil && dir != "" {
			d.reconciler.privateDirs = append(d.reconciler.privateDirs, abs)
		}
	}
	if err := os.MkdirAll(filepath.Join(o.StateDir, "captures"), 0o750); err != nil {
		d.log.Warn("the directory for captures could not be made", "err", err)
	}
}

// begin makes the stored document true, after taking back a change whose time to
// be confirmed ran out while no daemon was there.
func (d *Daemon) begin() error {
	d.edit.Lock()
	defer d.edit.Unlock()
	_, doc := d.store.View()
	p := d.pending()
	if p != nil && time.Now().After(p.Deadline) {
		old, err := d.before(p)
		if err == nil {
			doc = old
			err = d.goBackLocked(p, doc)
		}
		if err != nil {
			d.wentBack.Store(p.Version)
			d.log.Error("an unconfirmed change could not be taken back in the store", "version", p.Version, "err", err)
		}
		p = d.pending()
	}
	if err := d.reconciler.start(doc); err != nil {
		return err
	}
	d.armConfirm(p)
	return nil
}

// instance returns the identity by which this daemon knows its own interfaces
// and hooks again after a restart: eight random bytes in hex, kept in the state
// directory. Where that cannot be written they hold for this run.
func (d *Daemon) instance(dir string) string {
	path := filepath.Join(dir, "instance")
	if b, err := os.ReadFile(path); err == nil {
		if id := strings.TrimSpace(string(b)); len(id) == 16 {
			return id
		}
	}
	var b [8]byte
	rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	if err := os.WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		d.log.Warn("the identity of this switch could not be kept; its local ports get new MAC addresses at the next start", "err", err)
	}
	return id
}

// Close ends the daemon and takes away what must not outlive it: TAPs, tc hooks,
// sockets. The desired configuration stays.
func (d *Daemon) Close() error {
	d.cancel()
	d.spawning.Lock()
	d.ending = true
	d.spawning.Unlock()
	d.running.Wait()
	d.plugs.keeper.Close() // before edit is taken, which its work may wait for
	d.doctor.Close()       // what he made goes before the switch does
	d.edit.Lock()
	defer d.edit.Unlock()
	d.closed = true
	d.logLevel.close()
	d.armConfirm(nil)
	d.plugs.close(d.log)
	d.reconciler.close()
	d.sw.Close()
	if err := d.stopper.Close(); err != nil {
		d.log.Warn("tc program not unloaded", "err", err)
	}
	return d.store.Close()
}

// Bounds of the events that tell of drops.
const (
	dropsEvery     = time.Second
	dropsThreshold = 100 // frames of one reason at one port in dropsEvery
)

// watchDrops tells when many frames are dropped, while somebody listens.
func (d *Daemon) watchDrops(done <-chan struct{}) {
	tick := time.NewTicker(dropsEvery)
	defer tick.Stop()
	type key struct{ bridge, port, reason, source string }
	var last map[key]uint64 // nil: nobody listened a tick ago
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if d.hub.listening.Load() == 0 {
			last = nil
			continue
		}
		drops, err := d.countDrops("", "")
		if err != nil {
			continue
		}
		now := map[key]uint64{}
		for _, x := range drops {
			k := key{x.Bridge, x.Port, x.Reason, x.Source}
			now[k] = x.Count
			if n := x.Count - last[k]; last != nil && n >= dropsThreshold && x.Count >= last[k] {
				from, detail := "", map[string]any{"reason": x.Reason, "count": n}
				if x.Source != "" {
					from, detail["source"] = " from "+x.Source, x.Source
				}
				d.hub.tell(api.Event{
					Kind: "drops", Bridge: x.Bridge, Port: x.Port, Detail: detail,
					Message: fmt.Sprintf("%d frames%s dropped at %s in a second: %s (%s)", n, from, x.Port, x.Reason, x.Help),
				})
			}
		}
		last = now
	}
}
