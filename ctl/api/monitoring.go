package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

// MonitoringService is the part of Service that this file serves.
type MonitoringService interface {
	// SFlow lists what bridges export by sFlow; bridge "" is all.
	SFlow(ctx context.Context, bridge string) ([]SFlowStatus, error)
	// LogLevel says what the daemon logs.
	LogLevel(ctx context.Context) (LogStatus, error)
	// SetLogLevel changes that, for this run of the daemon only.
	SetLogLevel(ctx context.Context, c LogChange) (LogStatus, error)
}

// SFlowStatus is what one bridge exports by sFlow. Its counters begin anew when an
// option of it changes.
type SFlowStatus struct {
	Bridge   string         `json:"bridge"`
	Options  map[string]any `json:"options,omitempty"`
	State    string         `json:"state"` // up, error
	Reason   string         `json:"reason,omitempty"`
	Agent    string         `json:"agent,omitempty"` // the address that datagrams name
	SubAgent uint32         `json:"sub_agent"`       // the bridge's number at the agent
	Pool     uint64         `json:"pool"`            // frames that could have been sampled
	Samples  uint64         `json:"samples"`         // of them, told of
	Missed   uint64         `json:"missed"`          // samples that were lost in the switch
	Reports  uint64         `json:"reports"`         // of ports' counters
	Targets  []SFlowTarget  `json:"targets"`
}

// SFlowTarget is a collector.
type SFlowTarget struct {
	Address   string `json:"address"`
	Datagrams uint64 `json:"datagrams"` // sent
	Errors    uint64 `json:"errors"`    // that could not be sent, or nobody took
	Reason    string `json:"reason,omitempty"`
}

// LogLevels are the levels that can be set, from the most that is logged to the
// least.
var LogLevels = []string{"debug", "info", "warn", "error"}

// LogStatus is what the daemon logs.
type LogStatus struct {
	Level string     `json:"level"`           // what is below it is not logged
	Until *time.Time `json:"until,omitempty"` // when it goes back
	Then  string     `json:"then,omitempty"`  // to which level
}

// LogChange asks for another level.
type LogChange struct {
	Level string
	For   time.Duration // above zero: go back after it
}

// MaxLogFor is the longest time after which a level goes back by itself.
const MaxLogFor = 24 * time.Hour

// monitoringEndpoints is this file's part of endpoints.
func (s *Server) monitoringEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/sflow": {http.MethodGet: {[]string{"bridge"}, s.sflow}},
		"/v1/log": {
			http.MethodGet: {nil, s.logLevel},
			http.MethodPut: {[]string{"level", "for"}, s.setLogLevel},
		},
	}
}

func (s *Server) sflow(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	return list(s.svc.SFlow(r.Context(), q.str("bridge")))
}

func (s *Server) logLevel(_ http.ResponseWriter, r *http.Request, _ query) (any, error) {
	return answer(s.svc.LogLevel(r.Context()))
}

func (s *Server) setLogLevel(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	c := LogChange{Level: q.str("level")}
	if !slices.Contains(LogLevels, c.Level) {
		return nil, badParam("level", c.Level, "one of "+strings.Join(LogLevels, ", "))
	}
	if text := q.str("for"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > MaxLogFor {
			return nil, badParam("for", text, "a time from 1s to 24h, such as 10m")
		}
		c.For = d
	}
	return answer(s.svc.SetLogLevel(r.Context(), c))
}

// SFlow lists what bridges export by sFlow; bridge "" is all.
func (c *Client) SFlow(ctx context.Context, bridge string) ([]SFlowStatus, error) {
	return call[[]SFlowStatus](ctx, c, http.MethodGet, "sflow", params("bridge", bridge), nil)
}

// LogLevel says what the daemon logs.
func (c *Client) LogLevel(ctx context.Context) (LogStatus, error) {
	return call[LogStatus](ctx, c, http.MethodGet, "log", nil, nil)
}

// SetLogLevel changes what the daemon logs, for this run of it only.
func (c *Client) SetLogLevel(ctx context.Context, change LogChange) (LogStatus, error) {
	q := params("level", change.Level)
	if change.For != 0 {
		q.Set("for", change.For.String())
	}
	return call[LogStatus](ctx, c, http.MethodPut, "log", q, nil)
}
