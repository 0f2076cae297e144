// Package apitest is a double of the daemon behind the API: it answers what a
// test puts into it, and remembers what it was asked. It switches nothing and
// judges nothing.
package apitest

import (
	"context"
	"net/http"
	"sync"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// Service is an api.Service. A test fills the exported fields before it serves,
// and reads what was asked through Asked.
//
// Thread-safety: the methods of api.Service, Asked, Fail and Publish are safe for
// concurrent use; the fields must not change while it serves.
type Service struct {
	V       api.Version
	S       api.Status
	C       api.ConfigVersion
	R       api.EditResult
	H       []api.HistoryEntry
	F       []api.FDBEntry
	FS      []api.FDBStats
	Flushed int
	T       []api.TunnelStatus
	M       []api.MeshStatus
	D       []api.Drop
	B       []api.BridgeStats
	W       []api.WorkerStats
	Y       Why
	Tr      Traces
	P       Probes
	Captures
	Monitoring
	Plugs
	Panic any // not nil: every method but Version panics with it
	Feed  int // capacity of each subscription

	mu    sync.Mutex
	asked []any
	err   error
	subs  map[chan api.Event]bool
}

// Call is a method with scalar arguments that was asked for.
type Call struct {
	Method, Bridge, Port string
	Mesh                 string
	Version              uint64
}

// Applied is a call of Apply.
type Applied struct {
	Doc config.Document
	O   api.ApplyOptions
}

// Asked returns what was asked since the last call: api.Edit, Applied,
// api.FDBQuery or Call.
func (s *Service) Asked() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked
	s.asked = nil
	return a
}

// Fail makes every method return err from now on; nil ends that.
func (s *Service) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *Service) ask(what any) error {
	if s.Panic != nil {
		panic(s.Panic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, what)
	return s.err
}

// known refuses a bridge that S does not have, as the daemon does.
func (s *Service) known(bridge string) error {
	if bridge == "" {
		return nil
	}
	for _, b := range s.S.Bridges {
		if b.Name == bridge {
			return nil
		}
	}
	return &api.Error{Status: http.StatusNotFound, Field: "bridge", Value: bridge,
		Message: `no bridge "` + bridge + `"`}
}

func (s *Service) Version() api.Version { return s.V }

func (s *Service) Status(_ context.Context, bridge string) (api.Status, error) {
	if err := s.ask(Call{Method: "Status", Bridge: bridge}); err != nil {
		return api.Status{}, err
	}
	st := s.S
	if bridge == "" {
		return st, nil
	}
	for _, b := range s.S.Bridges {
		if b.Name == bridge {
			st.Bridges = []api.BridgeStatus{b}
		}
	}
	return st, s.known(bridge)
}

func (s *Service) Config(_ context.Context, version uint64) (api.ConfigVersion, error) {
	return s.C, s.ask(Call{Method: "Config", Version: version})
}

func (s *Service) Edit(_ context.Context, e api.Edit) (api.EditResult, error) {
	return s.R, s.ask(e)
}

func (s *Service) Apply(_ context.Context, doc config.Document, o api.ApplyOptions) (api.EditResult, error) {
	return s.R, s.ask(Applied{doc, o})
}

func (s *Service) Confirm(context.Context) (api.EditResult, error) {
	return s.R, s.ask(Call{Method: "Confirm"})
}

func (s *Service) Rollback(_ context.Context, version uint64) (api.EditResult, error) {
	return s.R, s.ask(Call{Method: "Rollback", Version: version})
}

func (s *Service) History(context.Context) ([]api.HistoryEntry, error) {
	return s.H, s.ask(Call{Method: "History"})
}

func (s *Service) FDB(_ context.Context, q api.FDBQuery) ([]api.FDBEntry, error) {
	if err := s.ask(q); err != nil {
		return nil, err
	}
	var out []api.FDBEntry
	for _, e := range s.F {
		if (q.Bridge == "" || q.Bridge == e.Bridge) && (q.Port == "" || q.Port == e.Port) &&
			(q.MAC == "" || q.MAC == e.MAC) && (q.VLAN < 0 || q.VLAN == e.VLAN) {
			out = append(out, e)
		}
	}
	return out, s.known(q.Bridge)
}

func (s *Service) FDBStats(_ context.Context, bridge string) ([]api.FDBStats, error) {
	return s.FS, s.ask(Call{Method: "FDBStats", Bridge: bridge})
}

func (s *Service) FDBFlush(_ context.Context, q api.FDBQuery) (api.FlushResult, error) {
	return api.FlushResult{Flushed: s.Flushed}, s.ask(q)
}

func (s *Service) Tunnels(_ context.Context, bridge string) ([]api.TunnelStatus, error) {
	if err := s.ask(Call{Method: "Tunnels", Bridge: bridge}); err != nil {
		return nil, err
	}
	var out []api.TunnelStatus
	for _, t := range s.T {
		if bridge == "" || bridge == t.Bridge {
			out = append(out, t)
		}
	}
	return out, s.known(bridge)
}

func (s *Service) Meshes(_ context.Context, name string) ([]api.MeshStatus, error) {
	if err := s.ask(Call{Method: "Meshes", Mesh: name}); err != nil {
		return nil, err
	}
	if name == "" {
		return s.M, nil
	}
	for _, m := range s.M {
		if m.Name == name {
			return []api.MeshStatus{m}, nil
		}
	}
	return nil, &api.Error{Status: http.StatusNotFound, Field: "name", Value: name, Message: `no mesh "` + name + `"`}
}

func (s *Service) Drops(_ context.Context, bridge, port string) ([]api.Drop, error) {
	return s.D, s.ask(Call{Method: "Drops", Bridge: bridge, Port: port})
}

func (s *Service) Stats(_ context.Context, bridge, port string) ([]api.BridgeStats, error) {
	return s.B, s.ask(Call{Method: "Stats", Bridge: bridge, Port: port})
}

func (s *Service) Workers(context.Context) ([]api.WorkerStats, error) {
	return s.W, s.ask(Call{Method: "Workers"})
}

func (s *Service) Subscribe() (<-chan api.Event, func()) {
	if s.Panic != nil {
		panic(s.Panic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan api.Event, max(s.Feed, 16))
	if s.subs == nil {
		s.subs = map[chan api.Event]bool{}
	}
	s.subs[ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, ch)
	}
}

// Publish gives e to every subscriber that has room, and says how many there are.
func (s *Service) Publish(e api.Event) (subscribers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.subs {
		select {
		case ch <- e:
		default:
		}
	}
	return len(s.subs)
}

// Subscribers counts the open subscriptions.
func (s *Service) Subscribers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subs)
}

// Serve serves s on a new socket at path with the given limits until the
// returned function is called.
func Serve(s api.Service, path string, limits api.Limits, log *LogRecorder) (stop func(), err error) {
	ln, err := api.Listen(path)
	if err != nil {
		return nil, err
	}
	srv := api.NewServer(s, log.Logger(), limits)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }() // ends with Shutdown
	return func() {
		// Tests leave connections open on purpose: cut them.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		srv.Shutdown(ctx)
		<-ended
	}, nil
}
