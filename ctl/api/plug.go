package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"vswitch/ctl/config"
)

// PlugService is the part of Service that this file serves.
type PlugService interface {
	// Plug plugs a container in, all or nothing: what it made is gone when it fails.
	Plug(ctx context.Context, q PlugRequest) (PlugResult, error)
	// Unplug takes plugs away.
	Unplug(ctx context.Context, q UnplugRequest) (UnplugResult, error)
	// Plugged lists plugs, those of runtimes among them; bridge "" is all.
	Plugged(ctx context.Context, bridge string) ([]PlugStatus, error)
	// Published lists the ports of the host that lead to containers.
	Published(ctx context.Context, bridge string) ([]PublishStatus, error)
	// Leases lists the addresses that containers have of bridges' subnets.
	Leases(ctx context.Context, bridge string) ([]LeaseStatus, error)

	// Attach plugs a network namespace in because a runtime says so. It is not part of the
	// document. The same attachment again is no error, and answers the same.
	Attach(ctx context.Context, q Attachment) (Attached, error)
	// Detach ends an attachment. That there is none is no error.
	Detach(ctx context.Context, owner, key string) error
	// Attachments lists what an owner attached.
	Attachments(ctx context.Context, owner string) ([]Attached, error)
	// CollectAttachments ends the owner's attachments whose keys are not in valid, of one bridge
	// ("" is all), and returns their keys.
	CollectAttachments(ctx context.Context, q Collect) (Collected, error)
}

// PlugRequest asks for a plug.
type PlugRequest struct {
	Container string         `json:"container"` // docker:NAME, …, a path, or a bare name
	Bridge    string         `json:"bridge"`
	Port      string         `json:"port,omitempty"`    // name of the port; "" is one made from the container's
	Options   config.Options `json:"options,omitempty"` // of a plug port, container excepted
	MayExist  bool           `json:"may_exist,omitempty"`
	Comment   string         `json:"comment,omitempty"` // for the history
}

// PlugResult says what a plug became.
type PlugResult struct {
	Plug    PlugStatus `json:"plug"`
	Version uint64     `json:"version"` // of the document
	Changed bool       `json:"changed"`
	Note    string     `json:"note,omitempty"` // such as that another container's plug serves this one
}

// UnplugRequest says which plugs go: of a container, in a bridge ("" is any), with an interface
// of that name ("" is any). More than one only with All.
type UnplugRequest struct {
	Container string `json:"container"`
	Bridge    string `json:"bridge,omitempty"`
	IfName    string `json:"ifname,omitempty"`
	All       bool   `json:"all,omitempty"`
	IfExists  bool   `json:"if_exists,omitempty"`
	Comment   string `json:"comment,omitempty"`
}

// UnplugResult says what went.
type UnplugResult struct {
	Ports   []string `json:"ports"`
	Version uint64   `json:"version"`
}

// PlugStatus is a plug and what became of it.
type PlugStatus struct {
	Bridge    string         `json:"bridge"`
	Port      string         `json:"port"`
	Container string         `json:"container"`
	IfName    string         `json:"ifname"`
	Owner     string         `json:"owner,omitempty"` // docker, cni: whose it is; "" the document's
	State     string         `json:"state"`           // plugged, waiting, error, going
	Reason    string         `json:"reason,omitempty"`
	Since     time.Time      `json:"since"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
	NetNS     string         `json:"netns,omitempty"`
	Names     []string       `json:"names,omitempty"`   // that the bridge's DNS answers
	Options   map[string]any `json:"options,omitempty"` // as the document says
}

// States of a plug.
const (
	PlugPlugged = "plugged"
	PlugWaiting = "waiting" // for its container
	PlugError   = "error"
	PlugGoing   = "going" // its container is gone, and the plug will be, after the grace time
)

// PublishStatus is a port of the host that leads to a container.
type PublishStatus struct {
	Bridge    string `json:"bridge"`
	Container string `json:"container"`
	Port      string `json:"port"`         // of the bridge
	Host      string `json:"host"`         // 0.0.0.0:8080/tcp
	To        string `json:"to,omitempty"` // 10.0.0.5:80
	State     string `json:"state"`        // up, waiting, error
	Reason    string `json:"reason,omitempty"`
}

// LeaseStatus is an address that a container has.
type LeaseStatus struct {
	Bridge  string     `json:"bridge"` // or another pool, such as docker/10.1.0.0/16
	Address netip.Addr `json:"address"`
	Owner   string     `json:"owner"`
	Since   time.Time  `json:"since"`
}

// Attachment is what a runtime asks for.
type Attachment struct {
	Owner   string         `json:"owner"` // cni
	Key     string         `json:"key"`   // unique among the owner's: CONTAINERID/IFNAME
	Bridge  string         `json:"bridge"`
	NetNS   string         `json:"netns"` // path
	IfName  string         `json:"ifname"`
	Options config.Options `json:"options,omitempty"` // of a plug port, container and ifname excepted
}

// Attached is an attachment and what became of it.
type Attached struct {
	Owner string     `json:"owner"`
	Key   string     `json:"key"`
	Plug  PlugStatus `json:"plug"`
}

// Collect says which attachments stay.
type Collect struct {
	Owner  string   `json:"owner"`
	Bridge string   `json:"bridge,omitempty"`
	Valid  []string `json:"valid"`
}

// Collected says which went.
type Collected struct {
	Keys []string `json:"keys"`
}

// plugEndpoints is this file's part of endpoints.
func (s *Server) plugEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/plug":   {http.MethodPost: {nil, posted(s, func(ctx context.Context, q PlugRequest) (PlugResult, error) { return s.svc.Plug(ctx, q) })}},
		"/v1/unplug": {http.MethodPost: {nil, posted(s, func(ctx context.Context, q UnplugRequest) (UnplugResult, error) { return s.svc.Unplug(ctx, q) })}},
		"/v1/plugged": {http.MethodGet: {[]string{"bridge"}, func(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
			return list(s.svc.Plugged(r.Context(), q.str("bridge")))
		}}},
		"/v1/published": {http.MethodGet: {[]string{"bridge"}, func(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
			return list(s.svc.Published(r.Context(), q.str("bridge")))
		}}},
		"/v1/leases": {http.MethodGet: {[]string{"bridge"}, func(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
			return list(s.svc.Leases(r.Context(), q.str("bridge")))
		}}},
		"/v1/attachments": {
			http.MethodGet: {[]string{"owner"}, func(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
				return list(s.svc.Attachments(r.Context(), q.str("owner")))
			}},
			http.MethodPost: {nil, posted(s, func(ctx context.Context, q Attachment) (Attached, error) { return s.svc.Attach(ctx, q) })},
			http.MethodDelete: {[]string{"owner", "key"}, func(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
				return struct{}{}, s.svc.Detach(r.Context(), q.str("owner"), q.str("key"))
			}},
		},
		"/v1/attachments/collect": {http.MethodPost: {nil, posted(s, func(ctx context.Context, q Collect) (Collected, error) { return s.svc.CollectAttachments(ctx, q) })}},
	}
}

// posted serves a call whose argument is the request's body.
func posted[Q, A any](s *Server, call func(context.Context, Q) (A, error)) func(http.ResponseWriter, *http.Request, query) (any, error) {
	return func(w http.ResponseWriter, r *http.Request, _ query) (any, error) {
		body, release, err := s.readBody(w, r)
		if err != nil {
			return nil, err
		}
		defer release()
		var q Q
		if err := decodeStrict(body, &q); err != nil {
			return nil, err
		}
		return answer(call(r.Context(), q))
	}
}

// post sends v and reads what is answered.
func post[A any](ctx context.Context, c *Client, path string, v any) (A, error) {
	body, err := json.Marshal(v)
	if err != nil {
		var none A
		return none, err
	}
	return call[A](ctx, c, http.MethodPost, path, nil, body)
}

// Plug plugs a container in.
func (c *Client) Plug(ctx context.Context, q PlugRequest) (PlugResult, error) {
	return post[PlugResult](ctx, c, "plug", q)
}

// Unplug takes plugs away.
func (c *Client) Unplug(ctx context.Context, q UnplugRequest) (UnplugResult, error) {
	return post[UnplugResult](ctx, c, "unplug", q)
}

// Plugged lists plugs; bridge "" is all.
func (c *Client) Plugged(ctx context.Context, bridge string) ([]PlugStatus, error) {
	return call[[]PlugStatus](ctx, c, http.MethodGet, "plugged", params("bridge", bridge), nil)
}

// Published lists the ports of the host that lead to containers.
func (c *Client) Published(ctx context.Context, bridge string) ([]PublishStatus, error) {
	return call[[]PublishStatus](ctx, c, http.MethodGet, "published", params("bridge", bridge), nil)
}

// Leases lists addresses given out.
func (c *Client) Leases(ctx context.Context, bridge string) ([]LeaseStatus, error) {
	return call[[]LeaseStatus](ctx, c, http.MethodGet, "leases", params("bridge", bridge), nil)
}

// Attach plugs a network namespace in for a runtime.
func (c *Client) Attach(ctx context.Context, q Attachment) (Attached, error) {
	return post[Attached](ctx, c, "attachments", q)
}

// Detach ends an attachment.
func (c *Client) Detach(ctx context.Context, owner, key string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "attachments", params("owner", owner, "key", key), nil)
	return err
}

// Attachments lists what an owner attached.
func (c *Client) Attachments(ctx context.Context, owner string) ([]Attached, error) {
	return call[[]Attached](ctx, c, http.MethodGet, "attachments", params("owner", owner), nil)
}

// CollectAttachments ends attachments that are not valid any more.
func (c *Client) CollectAttachments(ctx context.Context, q Collect) (Collected, error) {
	return post[Collected](ctx, c, "attachments/collect", q)
}
