package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// PathService is the part of Service that this file serves.
type PathService interface {
	// Path sends probes the way that a frame would go, from switch to switch, and
	// tells what each did with it. It takes up to MaxPath.
	Path(ctx context.Context, q PathQuery) (Path, error)
	// Doctor looks at all that is known to go wrong. It takes up to MaxDoctor; a
	// second one meanwhile is refused with status 409.
	Doctor(ctx context.Context, q DoctorQuery) (Doctor, error)
}

// How long the calls above may take.
const (
	MaxPath   = 10 * time.Second
	MaxDoctor = 25 * time.Second
)

// PathQuery asks after the way to an address.
type PathQuery struct {
	Target   string `json:"target"`           // MAC or IP address
	FromPort string `json:"from_port"`        // by which the frame would come in
	Bridge   string `json:"bridge,omitempty"` // that the port belongs to; left out: whichever it is
	VLAN     *int   `json:"vlan,omitempty"`   // left out: the target's, as far as it is known
}

// Path is the way to an address.
type Path struct {
	Target  string    `json:"target"` // as asked
	MAC     string    `json:"mac"`    // of the target
	Source  string    `json:"source"` // that the probe has
	Made    bool      `json:"made,omitempty"`
	VLAN    int       `json:"vlan"`
	Reached bool      `json:"reached"` // a port takes the frame that leads to no other switch
	Verdict string    `json:"verdict"` // in a sentence
	Fix     string    `json:"fix,omitempty"`
	Hops    []PathHop `json:"hops"` // depth first, where the way forks
}

// PathHop is one switch on the way, or a tunnel from whose other end nothing came.
type PathHop struct {
	Hop    int     `json:"hop"`            // 0: the switch that was asked
	Host   string  `json:"host,omitempty"` // host name
	Bridge string  `json:"bridge,omitempty"`
	InPort string  `json:"in_port,omitempty"`
	VLAN   int     `json:"vlan"`
	Known  bool    `json:"known,omitempty"` // the target is in the bridge's table
	RTT    float64 `json:"rtt_us"`          // until its report was here, in microseconds
	Dwell  float64 `json:"dwell_us"`        // of that, between hearing the probe and sending the report, by its own clock

	Outputs []PathOutput `json:"outputs,omitempty"`
	More    int          `json:"more,omitempty"` // outputs that it did not name
	Drops   []PathDrop   `json:"drops,omitempty"`
	Silent  bool         `json:"silent,omitempty"` // no report came
	Notes   []string     `json:"notes,omitempty"`  // such as: where the target is instead
}

// PathOutput is a port by which the frame leaves.
type PathOutput struct {
	Bridge string  `json:"bridge,omitempty"` // where that is another one of the host, behind a patch
	Port   string  `json:"port"`
	Type   string  `json:"type,omitempty"`
	Remote string  `json:"remote,omitempty"` // of a tunnel
	Key    *uint32 `json:"key,omitempty"`
	Silent bool    `json:"silent,omitempty"` // no report came from its other end
}

// PathDrop is a copy of the frame that goes no further.
type PathDrop struct {
	Bridge string `json:"bridge,omitempty"`
	Port   string `json:"port"`
	Out    bool   `json:"out,omitempty"` // on its way out
	Reason string `json:"reason"`
	Help   string `json:"help,omitempty"` // what that means and what to do
}

// DoctorQuery says what to look at.
type DoctorQuery struct {
	Bridge string `json:"bridge,omitempty"` // its ports and tunnels only; left out: all
	Peer   string `json:"peer,omitempty"`   // a host to look at besides: name or address
}

// Doctor is what is well and what is not.
type Doctor struct {
	Findings []Finding     `json:"findings"` // in groups, in a fixed order
	OK       int           `json:"ok"`
	Warn     int           `json:"warn"`
	Fail     int           `json:"fail"`
	Unknown  int           `json:"unknown"`
	Took     time.Duration `json:"took_ns"`
}

// What a Finding says of its subject.
const (
	StatusOK      = "ok"
	StatusWarn    = "warn"    // works, and may not be as it was meant
	StatusFail    = "fail"    // does not work
	StatusUnknown = "unknown" // could not tell, and why
)

// Groups of findings, in their order.
var DoctorGroups = []string{"host", "kernel", "leftovers", "configuration", "ports", "containers", "tunnels", "addresses", "losses", "checksums", "peer"}

// Finding is one thing that was looked at.
type Finding struct {
	Group   string `json:"group"`             // one of DoctorGroups
	Check   string `json:"check"`             // what was looked at: mtu, clock, port-state …
	Subject string `json:"subject,omitempty"` // such as a port's name
	Status  string `json:"status"`
	What    string `json:"what"`          // in a sentence
	Fix     string `json:"fix,omitempty"` // what to do, if there is something
}

// pathEndpoints is this file's part of endpoints.
func (s *Server) pathEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/path":   {http.MethodPost: endpoint{serve: s.path}},
		"/v1/doctor": {http.MethodPost: endpoint{serve: s.doctor}},
	}
}

func (s *Server) path(w http.ResponseWriter, r *http.Request, _ query) (any, error) {
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	var q PathQuery
	if err := decodeStrict(body, &q); err != nil {
		return nil, err
	}
	if q.Target, err = ParseAddress(q.Target); err != nil {
		if e, ok := asError(err); ok {
			e.Field = "target"
		}
		return nil, err
	}
	if q.FromPort == "" {
		return nil, &Error{Status: http.StatusBadRequest, Field: "from_port", Message: "from_port: missing; it is the port by which the frame would come in"}
	}
	if q.VLAN != nil && (*q.VLAN < 0 || *q.VLAN > 4094) {
		return nil, &Error{Status: http.StatusBadRequest, Field: "vlan", Value: fmt.Sprint(*q.VLAN), Allowed: "0 (untagged) to 4094",
			Message: fmt.Sprintf("vlan: %d is not a VLAN: want 0 (untagged) to 4094", *q.VLAN)}
	}
	ctx, cancel := s.untilDone(r.Context())
	defer cancel()
	p, err := s.svc.Path(ctx, q)
	return answer(p, cmp.Or(err, endedMeanwhile(r.Context(), ctx)))
}

// endedMeanwhile is the error of a look that was not brought to its end since the daemon
// ends; ctx is untilDone's of the request's.
func endedMeanwhile(request, ctx context.Context) error {
	if ctx.Err() == nil || request.Err() != nil {
		return nil
	}
	return &Error{Status: http.StatusServiceUnavailable, Message: "vswitchd ends, and did not look to the end; ask again when it runs"}
}

// maxPeer bounds DoctorQuery.Peer, in bytes: a host name has 253 (RFC 1035).
const maxPeer = 253

func (s *Server) doctor(w http.ResponseWriter, r *http.Request, _ query) (any, error) {
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	var q DoctorQuery
	if err := decodeStrict(body, &q); err != nil {
		return nil, err
	}
	if len(q.Peer) > maxPeer {
		return nil, &Error{Status: http.StatusBadRequest, Field: "peer", Allowed: "a host name or an address",
			Message: fmt.Sprintf("peer: %d bytes are no host name: want %d at most", len(q.Peer), maxPeer)}
	}
	ctx, cancel := s.untilDone(r.Context())
	defer cancel()
	d, err := s.svc.Doctor(ctx, q)
	return answer(d, cmp.Or(err, endedMeanwhile(r.Context(), ctx)))
}

// Path asks the way to an address. It takes up to MaxPath, and waits for that.
func (c *Client) Path(ctx context.Context, q PathQuery) (Path, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return Path{}, fmt.Errorf("encode question: %w", err)
	}
	return call[Path](ctx, c.patient(MaxPath), http.MethodPost, "path", nil, body)
}

// Doctor asks what is wrong. It takes up to MaxDoctor, and waits for that.
func (c *Client) Doctor(ctx context.Context, q DoctorQuery) (Doctor, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return Doctor{}, fmt.Errorf("encode question: %w", err)
	}
	return call[Doctor](ctx, c.patient(MaxDoctor), http.MethodPost, "doctor", nil, body)
}

// patient returns a client that waits for what the daemon takes beyond the time in
// which it should answer. Both share their connections.
func (c *Client) patient(takes time.Duration) *Client {
	return &Client{socket: c.socket, timeout: c.timeout + takes, http: c.http}
}
