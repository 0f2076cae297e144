package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"vswitch/ctl/config"
)

// Limits bound what clients may ask of the daemon. A zero field takes its
// default; tests inject short times.
type Limits struct {
	Body          int64         // bytes of a request's body; 16 MiB
	Header        int           // bytes of a request's header; 64 KiB
	HeaderTimeout time.Duration // to send a whole header; 5 s
	ReadTimeout   time.Duration // to send a whole request; 30 s
	WriteTimeout  time.Duration // to take a whole answer, or one write of a stream; 30 s
	IdleTimeout   time.Duration // between the requests of one connection; 30 s
	Conns         int           // connections served at once; 128
	Streams       int           // of which event streams; 32
	Large         int           // bodies beyond smallBody held at once; 4
	Dumps         int           // answers with a whole MAC table written at once; 8
}

// smallBody is the size up to which a body needs no slot of Limits.Large, so
// that clients with huge, slow bodies cannot keep ordinary edits out.
const smallBody = 256 << 10

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	if l.Body <= 0 {
		l.Body = 16 << 20
	}
	num(&l.Header, 64<<10)
	num(&l.Conns, 128)
	num(&l.Streams, 32)
	num(&l.Large, 4)
	num(&l.Dumps, 8)
	def(&l.HeaderTimeout, 5*time.Second)
	def(&l.ReadTimeout, 30*time.Second)
	def(&l.WriteTimeout, 30*time.Second)
	def(&l.IdleTimeout, 30*time.Second)
	return l
}

// Server answers the API's requests out of a Service. Its one rule: nothing a
// client does, or leaves undone, costs anybody else more than a bounded amount
// of memory and time.
//
// Thread-safety: all methods are safe for concurrent use.
type Server struct {
	svc    Service
	log    *slog.Logger
	limits Limits
	http   *http.Server
	routes map[string]map[string]endpoint // by path, then method
	done   chan struct{}                  // closed when Shutdown begins; ends the streams

	streams, large, dumps gate
}

// endpoint is one method of one path: the query parameters it knows, and what
// answers. A nil result with a nil error says the handler wrote its own answer.
type endpoint struct {
	params []string
	serve  func(w http.ResponseWriter, r *http.Request, q query) (any, error)
}

// gate admits as many as it has room for, and never makes anybody wait.
type gate chan struct{}

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

// NewServer returns a server of svc that logs what goes wrong inside to log.
func NewServer(svc Service, log *slog.Logger, limits Limits) *Server {
	l := limits.withDefaults()
	s := &Server{
		svc: svc, log: log, limits: l,
		done:    make(chan struct{}),
		streams: make(gate, l.Streams),
		large:   make(gate, l.Large),
		dumps:   make(gate, l.Dumps),
	}
	s.routes = s.endpoints()
	s.http = &http.Server{
		Handler:           s,
		MaxHeaderBytes:    l.Header,
		ReadHeaderTimeout: l.HeaderTimeout,
		ReadTimeout:       l.ReadTimeout,
		WriteTimeout:      l.WriteTimeout,
		IdleTimeout:       l.IdleTimeout,
		ConnContext:       markSurplus,
		// What the library has to say is about broken clients: not the
		// operator's concern unless he looks for it.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers the connections of ln until Shutdown, and closes ln. It returns
// nil after Shutdown.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(&limitListener{Listener: ln, max: s.limits.Conns})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the API on %s: %w", ln.Addr(), err)
}

// Shutdown ends the streams, lets running requests finish until ctx ends, then
// cuts what is left. It must be called at most once.
func (s *Server) Shutdown(ctx context.Context) error {
	close(s.done)
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
		return fmt.Errorf("shut down the API: %w", err)
	}
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tw := &trackWriter{ResponseWriter: w}
	defer func() {
		p := recover()
		switch {
		case p == nil:
		case p == http.ErrAbortHandler:
			panic(p)
		default:
			s.log.Error("api handler panicked", "method", r.Method, "path", r.URL.Path,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if tw.wrote {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.writeError(tw, r, errors.New("the request made the daemon panic; its log says where"))
		}
	}()

	if isSurplus(r.Context()) {
		w.Header().Set("Connection", "close")
		s.writeError(tw, r, busy("connections", s.limits.Conns))
		return
	}
	result, err := s.answer(tw, r)
	switch {
	case err != nil:
		s.writeError(tw, r, err)
	case result != nil:
		s.writeJSON(tw, r, http.StatusOK, result)
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	methods, ok := s.routes[r.URL.Path]
	if !ok {
		return nil, &Error{Status: http.StatusNotFound, Value: r.URL.Path,
			Message: fmt.Sprintf("there is no %q in this API; docs/api.md lists what there is", r.URL.Path)}
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	ep, ok := methods[method]
	if !ok {
		allowed := methodsOf(methods)
		w.Header().Set("Allow", allowed)
		return nil, &Error{Status: http.StatusMethodNotAllowed, Value: r.Method, Allowed: allowed,
			Message: fmt.Sprintf("method %s is not allowed on %s; allowed: %s", r.Method, r.URL.Path, allowed)}
	}
	q, err := parseQuery(r.URL.RawQuery, ep.params)
	if err != nil {
		return nil, err
	}
	return ep.serve(w, r, q)
}

func methodsOf(m map[string]endpoint) string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// busy is the refusal of one more than a bound allows.
func busy(what string, bound int) *Error {
	return &Error{Status: http.StatusServiceUnavailable,
		Message: fmt.Sprintf("the daemon serves %d %s at once and has no room for another; try again", bound, what)}
}

// asError turns what a Service or the configuration returned into what the
// client is told. ok is false for an error inside the daemon.
func asError(err error) (e *Error, ok bool) {
	if errors.As(err, &e) {
		if e.Status < 400 || e.Status > 599 {
			c := *e
			c.Status = http.StatusBadRequest
			e = &c
		}
		return e, true
	}
	var ce *config.Error
	if errors.As(err, &ce) {
		// The message is all of err, which may be several; the rest is of the first.
		return &Error{Status: http.StatusBadRequest, Message: err.Error(),
			Field: ce.Path, Value: ce.Value, Allowed: ce.Allowed}, true
	}
	return &Error{Status: http.StatusInternalServerError, Message: err.Error()}, false
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e, expected := asError(err)
	if !expected && r.Context().Err() != nil {
		return // the client went away; nobody is left to tell
	}
	if !expected {
		s.log.Error("api request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	s.writeJSON(w, r, e.Status, e)
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	body, err := encode(v)
	if err != nil { // such as a NaN in a share
		s.log.Error("api answer cannot be encoded", "path", r.URL.Path, "err", err)
		status = http.StatusInternalServerError
		body, _ = encode(&Error{Message: "the daemon could not encode its answer: " + err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body) // an error here is a client that left
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// trackWriter knows whether an answer has begun.
type trackWriter struct {
	http.ResponseWriter
	wrote bool
}

func (t *trackWriter) WriteHeader(status int) {
	t.wrote = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *trackWriter) Write(b []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach flush and deadlines.
func (t *trackWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// list makes an empty list print as [] and not as null.
func list[T any](v []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = []T{}
	}
	return v, nil
}
