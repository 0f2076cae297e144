package api

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query is a request's parameters: each known to its endpoint, each given once.
type query url.Values

func parseQuery(raw string, known []string) (query, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Field: "query", Message: "query: " + err.Error()}
	}
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	slices.Sort(names) // the same request gets the same answer
	for _, name := range names {
		if !slices.Contains(known, name) {
			allowed := strings.Join(known, ", ")
			if allowed == "" {
				allowed = "none"
			}
			return nil, &Error{Status: http.StatusBadRequest, Field: name, Allowed: allowed,
				Message: fmt.Sprintf("unknown parameter %q; known here: %s", name, allowed)}
		}
		if len(v[name]) > 1 {
			return nil, &Error{Status: http.StatusBadRequest, Field: name,
				Message: fmt.Sprintf("parameter %s is given %d times; once is enough", name, len(v[name]))}
		}
	}
	return query(v), nil
}

func (q query) str(name string) string { return url.Values(q).Get(name) }

func badParam(name, value, allowed string) *Error {
	return &Error{Status: http.StatusBadRequest, Field: name, Value: value, Allowed: allowed,
		Message: fmt.Sprintf("parameter %s: %q is not %s", name, value, allowed)}
}

// version returns 0 when the parameter is absent.
func (q query) version() (uint64, error) {
	s := q.str("version")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, badParam("version", s, "a version number, such as 7")
	}
	return n, nil
}

func (q query) flag(name string) (bool, error) {
	switch s := q.str(name); s {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	default:
		return false, badParam(name, s, "0 or 1")
	}
}

// MaxConfirm is the longest time a change may wait for its confirmation.
const MaxConfirm = 24 * time.Hour

// ParseConfirm reads the time of `apply --confirm`: 60s, 5m, or bare seconds.
func ParseConfirm(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseUint(s, 10, 31); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < time.Second || d > MaxConfirm {
		return 0, badParam("confirm", s, "a time from 1s to 24h, such as 60s or 5m")
	}
	return d, nil
}

func (q query) apply() (o ApplyOptions, err error) {
	if s := q.str("confirm"); s != "" {
		if o.Confirm, err = ParseConfirm(s); err != nil {
			return o, err
		}
	}
	if o.DryRun, err = q.flag("dry_run"); err != nil {
		return o, err
	}
	o.Comment = q.str("comment")
	return o, checkComment(o.Comment)
}

// maxComment keeps history readable and the store small.
const maxComment = 1024

func checkComment(s string) error {
	if len(s) > maxComment {
		return &Error{Status: http.StatusBadRequest, Field: "comment", Allowed: "up to 1024 bytes",
			Message: fmt.Sprintf("comment: %d bytes are too many; allowed: up to %d", len(s), maxComment)}
	}
	return nil
}

var fdbParams = []string{"bridge", "port", "mac", "vlan"}

func (q query) fdb() (FDBQuery, error) {
	f := FDBQuery{Bridge: q.str("bridge"), Port: q.str("port"), VLAN: -1}
	if s := q.str("mac"); s != "" {
		mac, err := net.ParseMAC(s)
		if err != nil || len(mac) != 6 {
			return f, badParam("mac", s, "a MAC address, such as 02:00:00:00:00:01")
		}
		f.MAC = mac.String()
	}
	if s := q.str("vlan"); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n > 4094 {
			return f, badParam("vlan", s, "a VLAN from 0 (untagged) to 4094")
		}
		f.VLAN = int(n)
	}
	return f, nil
}

func (q query) events() (EventFilter, error) {
	f := EventFilter{Bridge: q.str("bridge")}
	if s := q.str("kind"); s != "" {
		f.Kinds = strings.Split(s, ",")
	}
	for _, k := range f.Kinds {
		if !slices.Contains(EventKinds, k) {
			return f, badParam("kind", k, "one of "+strings.Join(EventKinds, ", "))
		}
	}
	return f, nil
}
