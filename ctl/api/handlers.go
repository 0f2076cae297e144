package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"

	"vswitch/ctl/config"
)

// endpoints is the whole API. docs/api.md says the same in prose.
func (s *Server) endpoints() map[string]map[string]endpoint {
	get := func(e endpoint) map[string]endpoint { return map[string]endpoint{http.MethodGet: e} }
	post := func(e endpoint) map[string]endpoint { return map[string]endpoint{http.MethodPost: e} }
	all := map[string]map[string]endpoint{
		"/v1/version": get(endpoint{serve: s.version}),
		"/v1/status":  get(endpoint{[]string{"bridge"}, s.status}),
		"/v1/config": {
			http.MethodGet: endpoint{[]string{"version"}, s.config},
			http.MethodPut: endpoint{[]string{"confirm", "dry_run", "comment"}, s.apply},
		},
		"/v1/edit":      post(endpoint{serve: s.edit}),
		"/v1/confirm":   post(endpoint{serve: s.confirm}),
		"/v1/rollback":  post(endpoint{[]string{"version"}, s.rollback}),
		"/v1/history":   get(endpoint{serve: s.history}),
		"/v1/fdb":       get(endpoint{fdbParams, s.fdb}),
		"/v1/fdb/stats": get(endpoint{[]string{"bridge"}, s.fdbStats}),
		"/v1/fdb/flush": post(endpoint{fdbParams, s.fdbFlush}),
		"/v1/tunnels":   get(endpoint{[]string{"bridge"}, s.tunnels}),
		"/v1/meshes":    get(endpoint{[]string{"name"}, s.meshes}),
		"/v1/drops":     get(endpoint{[]string{"bridge", "port"}, s.drops}),
		"/v1/stats":     get(endpoint{[]string{"bridge", "port"}, s.stats}),
		"/v1/workers":   get(endpoint{serve: s.workers}),
		"/v1/events":    get(endpoint{[]string{"kind", "bridge"}, s.events}),
	}
	for _, part := range []map[string]map[string]endpoint{
		s.captureEndpoints(), s.whyEndpoints(), s.traceEndpoints(), s.pathEndpoints(), s.monitoringEndpoints(), s.plugEndpoints(),
	} {
		maps.Copy(all, part)
	}
	return all
}

func (s *Server) version(http.ResponseWriter, *http.Request, query) (any, error) {
	return s.svc.Version(), nil
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	st, err := s.svc.Status(r.Context(), q.str("bridge"))
	if err != nil {
		return nil, err
	}
	if st.Bridges == nil {
		st.Bridges = []BridgeStatus{}
	}
	return st, nil
}

func (s *Server) config(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	version, err := q.version()
	if err != nil {
		return nil, err
	}
	return answer(s.svc.Config(r.Context(), version))
}

func (s *Server) apply(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	o, err := q.apply()
	if err != nil {
		return nil, err
	}
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	doc, err := config.Parse(body)
	if err != nil {
		return nil, badBody(err)
	}
	return answer(s.svc.Apply(r.Context(), doc, o))
}

func (s *Server) edit(w http.ResponseWriter, r *http.Request, _ query) (any, error) {
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	var e Edit
	if err := decodeStrict(body, &e); err != nil {
		return nil, err
	}
	if len(e.Ops) == 0 {
		return nil, &Error{Status: http.StatusBadRequest, Field: "ops", Message: "ops: an edit needs at least one"}
	}
	if err := checkComment(e.Comment); err != nil {
		return nil, err
	}
	return answer(s.svc.Edit(r.Context(), e))
}

func (s *Server) confirm(_ http.ResponseWriter, r *http.Request, _ query) (any, error) {
	return answer(s.svc.Confirm(r.Context()))
}

func (s *Server) rollback(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	version, err := q.version()
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, &Error{Status: http.StatusBadRequest, Field: "version",
			Allowed: "a version number, such as 7",
			Message: "parameter version: say which version to go back to; history lists them"}
	}
	return answer(s.svc.Rollback(r.Context(), version))
}

func (s *Server) history(_ http.ResponseWriter, r *http.Request, _ query) (any, error) {
	return list(s.svc.History(r.Context()))
}

// fdb writes entry by entry: a table of a million is 100 MB of JSON that must
// not stand in memory once more.
func (s *Server) fdb(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	f, err := q.fdb()
	if err != nil {
		return nil, err
	}
	if !s.dumps.enter() {
		return nil, busy("MAC table dumps", s.limits.Dumps)
	}
	defer s.dumps.leave()
	entries, err := s.svc.FDB(r.Context(), f)
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/json")
	bw := bufio.NewWriterSize(w, 32<<10)
	for i := range entries {
		sep := ",\n"
		if i == 0 {
			sep = "["
		}
		b, err := json.Marshal(&entries[i])
		if err != nil {
			panic(err) // strings and integers only: cannot happen
		}
		bw.WriteString(sep)
		if _, err := bw.Write(b); err != nil {
			return nil, nil // the client left
		}
	}
	if len(entries) == 0 {
		bw.WriteString("[")
	}
	bw.WriteString("]\n")
	bw.Flush()
	return nil, nil
}

func (s *Server) fdbStats(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.FDBStats(r.Context(), q.str("bridge")))
}

func (s *Server) fdbFlush(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	f, err := q.fdb()
	if err != nil {
		return nil, err
	}
	return answer(s.svc.FDBFlush(r.Context(), f))
}

func (s *Server) tunnels(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.Tunnels(r.Context(), q.str("bridge")))
}

func (s *Server) meshes(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.Meshes(r.Context(), q.str("name")))
}

func (s *Server) drops(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.Drops(r.Context(), q.str("bridge"), q.str("port")))
}

func (s *Server) stats(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.Stats(r.Context(), q.str("bridge"), q.str("port")))
}

func (s *Server) workers(_ http.ResponseWriter, r *http.Request, _ query) (any, error) {
	return list(s.svc.Workers(r.Context()))
}

// answer keeps a half-filled result from going out beside an error.
func answer[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// readBody returns the whole body. release gives back what it holds, and must
// be called when the body's content is no longer needed.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	release = func() {}
	// A client that still writes when the connection closes gets a broken pipe
	// and not the answer: what is refused is read on for a while, and forgotten.
	refuse := func(e *Error) ([]byte, func(), error) {
		io.CopyN(io.Discard, r.Body, s.limits.Body)
		return nil, release, e
	}
	if r.ContentLength > s.limits.Body {
		return refuse(s.tooLarge())
	}
	limited := io.LimitReader(r.Body, s.limits.Body+1)
	var buf bytes.Buffer
	if _, err = io.CopyN(&buf, limited, smallBody); err == nil { // there may be more
		if !s.large.enter() {
			return refuse(busy("large documents", s.limits.Large))
		}
		if _, err = buf.ReadFrom(limited); err != nil || int64(buf.Len()) > s.limits.Body {
			s.large.leave()
		} else {
			release = s.large.leave
		}
	}
	switch {
	case int64(buf.Len()) > s.limits.Body:
		return refuse(s.tooLarge())
	case err == nil, errors.Is(err, io.EOF):
		return buf.Bytes(), release, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, release, &Error{Status: http.StatusRequestTimeout,
			Message: fmt.Sprintf("the request did not arrive whole within %s", s.limits.ReadTimeout)}
	default:
		return nil, release, &Error{Status: http.StatusBadRequest, Message: "read the request's body: " + err.Error()}
	}
}

func (s *Server) tooLarge() *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Allowed: fmt.Sprintf("up to %d bytes", s.limits.Body),
		Message: fmt.Sprintf("the request's body is too large; allowed: up to %d bytes", s.limits.Body)}
}

// badBody is a document that could not be read: the client's fault, whatever
// the type of the error.
func badBody(err error) error {
	if e, ok := asError(err); ok {
		return e
	}
	return &Error{Status: http.StatusBadRequest, Message: err.Error()}
}

// decodeStrict reads exactly one JSON value with no field that v does not have.
func decodeStrict(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err := dec.Token(); err != io.EOF {
			return &Error{Status: http.StatusBadRequest, Message: "the request's body: something follows the JSON value"}
		}
		return nil
	}
	e := &Error{Status: http.StatusBadRequest}
	var typ *json.UnmarshalTypeError
	var syn *json.SyntaxError
	switch name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); {
	case unknown:
		e.Field = strings.Trim(name, `"`)
		e.Message = fmt.Sprintf("unknown field %s in the request's body", name)
	case errors.As(err, &typ):
		e.Field, e.Value = typ.Field, typ.Value
		e.Message = fmt.Sprintf("field %s: a JSON %s does not fit here", typ.Field, typ.Value)
	case errors.As(err, &syn):
		e.Message = fmt.Sprintf("the request's body is not JSON: %v (at byte %d)", syn, syn.Offset)
	case errors.Is(err, io.EOF):
		e.Message = "the request's body is empty; JSON is wanted"
	default: // from the reader of options, or an incomplete value
		var ce *config.Error
		if errors.As(err, &ce) {
			return err
		}
		e.Message = "the request's body is not JSON: " + err.Error()
	}
	return e
}
