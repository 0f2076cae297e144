package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"vswitch/ctl/config"
)

// Bounds of what an engine may say, and of how many ask it at once.
const (
	maxBody    = 4 << 20 // of an answer
	maxHeaders = 64 << 10
	maxReason  = 200 // bytes of an error's text that are shown
	maxNames   = 64  // of one container
	maxList    = 4096
	maxAsking  = 8
	maxSharing = 8 // containers that share with one that shares …
)

// engine is Docker or Podman: both speak Docker's API (Docker Engine API v1.41; podman's
// "compatibility" API) on a unix socket. No version is in the paths, so each answers in
// its newest.
//
// Thread-safety: safe for concurrent use.
type engine struct {
	kind    string
	socket  string
	timeout time.Duration // of one question, its body included
	http    *http.Client
	asking  chan struct{} // a seat for each question
}

func newEngine(kind, socket string, timeout time.Duration) *engine {
	e := &engine{kind: kind, socket: socket, timeout: timeout, asking: make(chan struct{}, maxAsking)}
	e.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
			},
			// Podman's service ends when nobody is connected.
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxHeaders,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e
}

// get asks for a path, which begins with a slash. The status is 200 or 404.
func (e *engine) get(ctx context.Context, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	select {
	case e.asking <- struct{}{}:
		defer func() { <-e.asking }()
	case <-ctx.Done():
		return 0, nil, e.silent(ctx.Err())
	}
	resp, err := e.do(ctx, path)
	if err != nil {
		return 0, nil, e.silent(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return 0, nil, e.silent(err)
	case len(body) > maxBody:
		return 0, nil, fmt.Errorf("%w: %s on %s answers more than %d bytes", ErrNoAnswer, e.kind, e.socket, maxBody)
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusNotFound:
		return resp.StatusCode, body, nil
	}
	return 0, nil, fmt.Errorf("%s answers %d: %s", e.kind, resp.StatusCode, reason(body))
}

func (e *engine) do(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.kind+path, nil)
	if err != nil {
		return nil, err
	}
	return e.http.Do(req)
}

// silent is the error of a question that got no answer, or errAbsent where there is
// nobody to ask.
func (e *engine) silent(err error) error {
	var by *url.Error // it would say the method and an address that nobody knows
	if errors.As(err, &by) {
		err = by.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errAbsent
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %s on %s: %w", ErrNoAnswer, e.kind, e.socket, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s on %s, within %v", ErrNoAnswer, e.kind, e.socket, e.timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s is stopped, nobody listens on %s", ErrNoAnswer, e.kind, e.socket)
	}
	return fmt.Errorf("%w: %s on %s: %w", ErrNoAnswer, e.kind, e.socket, err)
}

// reason is the message of an error's body, as much of it as can be shown.
func reason(body []byte) string {
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = string(body)
	}
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, said.Message)
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return strings.TrimSpace(text)
}

// inspected is what is read of GET /containers/NAME/json.
type inspected struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Running bool
		PID     int `json:"Pid"`
	}
	HostConfig      struct{ NetworkMode string }
	NetworkSettings struct {
		Networks map[string]*struct{ Aliases []string }
	}
}

// find asks for a container by its name, its ID, or the beginning of its ID.
func (e *engine) find(ctx context.Context, word string) (Container, error) {
	c, owner, err := e.inspect(ctx, word)
	if err != nil {
		return c, err
	}
	if owner == "" {
		return c, c.settle()
	}
	// Its own process is in the owner's namespace, or was when the owner last started:
	// what counts is where the owner is now.
	c.Names = c.Names[:1]
	for range maxSharing {
		var o Container
		if o, owner, err = e.inspect(ctx, owner); err != nil {
			if errors.Is(err, ErrUnknown) { // its process keeps the namespace of one that is gone
				return c, c.settle()
			}
			return c, fmt.Errorf("whose network %s uses: %w", c.Ref, err)
		}
		if owner == "" {
			if err := o.settle(); err != nil {
				return c, err
			}
			c.SharesWith, c.Host = o.Ref, c.Host || o.Host
			c.Running = c.Running && o.Running
			if c.Running {
				c.NetNS, c.by = o.NetNS, o.by
			} else {
				c.PID = 0
			}
			return c, nil
		}
	}
	return c, fmt.Errorf("%s shares a network that is shared more than %d times over", c.Ref, maxSharing)
}

// inspect asks for one container, and says whose network it uses when that is another's.
func (e *engine) inspect(ctx context.Context, word string) (c Container, owner string, err error) {
	status, body, err := e.get(ctx, "/containers/"+url.PathEscape(word)+"/json")
	if err != nil {
		return c, "", err
	}
	if status == http.StatusNotFound {
		return c, "", fmt.Errorf("%w: %s:%s (asked %s)", ErrUnknown, e.kind, word, e.socket)
	}
	if c, owner, err = e.read(body); err != nil {
		return c, "", fmt.Errorf("%w: %s on %s: what it says of %s cannot be read: %w", ErrNoAnswer, e.kind, e.socket, word, err)
	}
	return c, owner, nil
}

// read reads a container. Nothing in it is believed to be well-formed.
func (e *engine) read(body []byte) (c Container, owner string, err error) {
	var in inspected
	if err := json.Unmarshal(body, &in); err != nil {
		return c, "", err
	}
	name := strings.TrimPrefix(in.Name, "/")
	ref, err := config.ParseContainer(e.kind + ":" + name)
	if err != nil {
		return c, "", err
	}
	if in.ID == "" || strings.Trim(in.ID, "0123456789abcdef") != "" || len(in.ID) > 128 {
		return c, "", errors.New("its ID is none")
	}
	c = Container{Ref: ref, ID: in.ID, Names: []string{name}}
	if in.State.Running && in.State.PID > 0 { // not so between two tries of a restart policy
		c.Running, c.PID = true, in.State.PID
	}
	for _, network := range in.NetworkSettings.Networks {
		if network == nil {
			continue
		}
		for _, alias := range network.Aliases {
			if len(c.Names) < maxNames && validName(alias) && !slices.Contains(c.Names, alias) {
				c.Names = append(c.Names, alias)
			}
		}
	}
	slices.Sort(c.Names[1:]) // networks come in no order
	mode := in.HostConfig.NetworkMode
	c.Host = mode == "host"
	if owner, shares := strings.CutPrefix(mode, "container:"); shares {
		if !validName(owner) {
			return c, "", errors.New("it uses the network of nobody")
		}
		return c, owner, nil
	}
	return c, "", nil
}

func validName(s string) bool {
	ref, err := config.ParseContainer(config.DockerContainer + ":" + s)
	return err == nil && ref.Name == s
}

// names lists the containers that there are.
func (e *engine) names(ctx context.Context) (list []string) {
	_, body, err := e.get(ctx, "/containers/json?all=1")
	var all []struct{ Names []string }
	if err != nil || json.Unmarshal(body, &all) != nil {
		return nil
	}
	for _, c := range all {
		for _, name := range c.Names {
			if name = strings.TrimPrefix(name, "/"); len(list) < maxList && validName(name) {
				list = append(list, name)
			}
		}
	}
	return list
}
