package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
)

// The collector asks Docker what there still is. It never does while a call is under way, or
// soon after one: dockerd is then in the middle of something.
const (
	collectEvery = 15 * time.Second
	collectQuiet = 5 * time.Second // since the last call
	askTime      = 5 * time.Second // for one answer of Docker's
	maxAnswer    = 16 << 20        // bytes of one
	roundsToGo   = 2               // that must not find a thing, one after the other
)

// known is what Docker says there is.
type known struct {
	networks  map[string]dockerNetwork
	endpoints map[string]dockerEndpoint
}

type dockerNetwork struct {
	ID     string `json:"Id"`
	Name   string
	Labels map[string]string
	IPAM   struct {
		Driver string
		Config []struct {
			Subnet, Gateway string
			AuxAddress      map[string]string `json:"AuxiliaryAddresses"`
		}
	}
	Containers map[string]dockerEndpoint
}

type dockerEndpoint struct {
	Name, EndpointID         string
	IPv4Address, IPv6Address string
}

// collector is the memory between rounds.
type collector struct {
	d    *Driver
	ask  func(ctx context.Context, path string, v any) error
	lost map[string]int // rounds without it, by key of an item, or by pool and address of a lease

	last  time.Time // when there was a round
	calls uint64    // that there had been before it
}

// Collect drops what Docker no longer knows, and learns what containers and networks are
// called, until ctx ends.
func (d *Driver) Collect(ctx context.Context) { d.collect(ctx, collectEvery, collectQuiet) }

func (d *Driver) collect(ctx context.Context, every, quiet time.Duration) {
	if d.o.Docker == "" {
		return
	}
	c := &collector{d: d, ask: asker(d.o.Docker), lost: map[string]int{}}
	tick := time.NewTicker(min(every, time.Second))
	defer tick.Stop()
	for {
		c.contained(ctx, every, quiet)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// asker asks an API on a unix socket.
func asker(socket string) func(ctx context.Context, path string, v any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	return func(ctx context.Context, path string, v any) error {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
		if err != nil {
			return err
		}
		a, err := client.Do(q)
		if err != nil {
			return fmt.Errorf("ask Docker: %w", err)
		}
		defer a.Body.Close()
		if a.StatusCode == http.StatusNotFound {
			return errUnknown
		}
		if a.StatusCode != http.StatusOK {
			return fmt.Errorf("ask Docker for %s: %s", path, a.Status)
		}
		if err := json.NewDecoder(io.LimitReader(a.Body, maxAnswer)).Decode(v); err != nil {
			return fmt.Errorf("ask Docker for %s: %w", path, err)
		}
		return nil
	}
}

// errUnknown is Docker's word that there is no such thing.
var errUnknown = fmt.Errorf("Docker has no such thing")

// quietFor is the number of calls so far. ok says that none is under way, nor was for so long.
func (d *Driver) quietFor(least time.Duration) (calls uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls, d.under == 0 && time.Since(d.last) >= least
}

// contained is a round, when it is time for one: soon after calls, since there are new names
// to learn, and once in a while. A fault of it does not end the switch.
func (c *collector) contained(ctx context.Context, every, quiet time.Duration) {
	defer func() {
		if p := recover(); p != nil {
			c.d.o.Log.Error("a look at what Docker has failed in the switch", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	calls, ok := c.d.quietFor(quiet)
	if ago := time.Since(c.last); !ok || ago < quiet || calls == c.calls && ago < every {
		return
	}
	c.last, c.calls = time.Now(), calls
	c.round(ctx, quiet)
}

// round is one look. Whatever Docker does not answer, and a call in between, ends it: then
// nothing is known, and nothing is dropped.
func (c *collector) round(ctx context.Context, quiet time.Duration) {
	calls, ok := c.d.quietFor(quiet)
	if !ok || !c.d.hasAny() {
		return
	}
	k, err := c.look(ctx)
	if err != nil {
		c.d.o.Log.Debug("nothing is collected", "err", err)
		return
	}
	back, err := c.d.mine(ctx)
	if err != nil {
		return
	}
	defer back()
	if now, ok := c.d.quietFor(0); !ok || now != calls {
		return
	}
	if err := c.settle(ctx, k); err != nil {
		c.d.o.Log.Warn("what Docker no longer knows could not be removed", "err", err)
	}
}

// hasAny says whether there is anything of Docker's. Addresses are all that there is of a
// network of another driver with a bridge's addresses.
func (d *Driver) hasAny() bool {
	return len(d.o.Switch.Held()) > 0 ||
		slices.ContainsFunc(d.leases.Leases(""), func(l ipam.Lease) bool { return OwnsLease(l.Owner) })
}

// look asks Docker for its networks, and for the containers in those that may have addresses
// or ports of ours: somebody else's network may have our IPAM driver, and the other way round.
func (c *collector) look(ctx context.Context) (known, error) {
	k := known{networks: map[string]dockerNetwork{}, endpoints: map[string]dockerEndpoint{}}
	var all []dockerNetwork
	if err := c.ask(ctx, "/networks", &all); err != nil {
		return k, err
	}
	for _, n := range all {
		k.networks[n.ID] = n
	}
	for _, n := range all {
		_, ours := c.d.find(networkKey(n.ID))
		if builtIn := n.IPAM.Driver == "default" || n.IPAM.Driver == "null"; !ours && builtIn || checkID("a network", n.ID) != nil {
			continue
		}
		var one dockerNetwork
		if err := c.ask(ctx, "/networks/"+n.ID, &one); err != nil {
			return k, err
		}
		k.networks[n.ID] = one
		for _, e := range one.Containers {
			k.endpoints[e.EndpointID] = e
		}
	}
	return k, nil
}

// missing counts a round in which Docker does not know a thing.
func (c *collector) missing(key string, found bool) (drop bool) {
	if found {
		delete(c.lost, key)
		return false
	}
	c.lost[key]++
	return c.lost[key] >= roundsToGo
}

// settle drops what was missing for long enough, and notes names. The caller has the turn.
func (c *collector) settle(ctx context.Context, k known) error {
	d := c.d
	seen := map[string]bool{}
	drop := func(key string, found bool) bool {
		seen[key] = true
		return c.missing(key, found)
	}
	var put []held.Item
	for _, i := range d.o.Switch.Held() {
		if n, ok := networkOf(i); ok {
			now, there := k.networks[n.ID]
			if drop(i.Key, there) {
				d.o.Log.Info("a network that Docker no longer knows is removed", "network", n.ID, "name", n.Name)
				if err := d.dropNetwork(ctx, n.ID); err != nil {
					return err
				}
			} else if there && (n.Name != now.Name || !maps.Equal(n.Labels, now.Labels)) {
				n.Name, n.Labels = now.Name, now.Labels
				put = appendWith(put, i, n)
			}
		}
		if e, ok := endpointOf(i); ok {
			now, there := k.endpoints[e.ID]
			if drop(i.Key, there) {
				d.o.Log.Info("an endpoint that Docker no longer knows is removed", "endpoint", e.ID, "container", e.Container)
				if err := d.dropEndpoint(ctx, e.ID); err != nil {
					return err
				}
			} else if there && e.Container != now.Name {
				e.Container = now.Name
				named(&i, now.Name)
				put = appendWith(put, i, e)
			}
		}
		if p, ok := poolOf(i); ok {
			id := strings.TrimPrefix(i.Key, poolKey(""))
			if drop(i.Key, k.hasSubnet(p.Subnet)) {
				d.o.Log.Info("a subnet that Docker no longer knows is free", "subnet", p.Subnet)
				if err := d.dropPool(ctx, id); err != nil {
					return err
				}
			}
		}
	}
	for _, l := range d.leases.Leases("") {
		key := "lease/" + l.Pool + "/" + l.Addr.String()
		if OwnsLease(l.Owner) && drop(key, k.hasLease(l) || d.endpointHas(l.Owner)) {
			d.o.Log.Info("an address that Docker no longer knows is free", "address", l.Addr, "pool", l.Pool)
			if err := d.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
				return err
			}
		}
	}
	maps.DeleteFunc(c.lost, func(key string, _ int) bool { return !seen[key] })
	put = slices.DeleteFunc(put, func(i held.Item) bool { _, there := d.find(i.Key); return !there })
	if len(put) == 0 {
		return nil
	}
	return d.hold(ctx, put)
}

// appendWith adds an item with new data.
func appendWith(put []held.Item, i held.Item, data any) []held.Item {
	text, err := json.Marshal(data)
	if err != nil {
		return put
	}
	i.Data = text
	return append(put, i)
}

// named makes a container's name an alias on its bridge, where it can be the name of a host.
func named(i *held.Item, name string) {
	p := ownPort(i)
	delete(p.Options, "alias")
	o, err := config.Lookup(config.PlugPort, "alias")
	if err != nil {
		return
	}
	if text, err := o.Canonical(name); err == nil && !strings.Contains(name, ",") {
		p.Options["alias"] = text
	}
}

// hasSubnet says whether one of Docker's networks, whoever drives it, has a subnet.
func (k known) hasSubnet(p netip.Prefix) bool {
	for _, n := range k.networks {
		for _, c := range n.IPAM.Config {
			if q, err := netip.ParsePrefix(c.Subnet); err == nil && q.Masked() == p {
				return true
			}
		}
	}
	return false
}

// hasLease says whether Docker uses an address: for a container that runs, or for a network.
// It does not always say which gateway it was given, so that goes with the subnet.
func (k known) hasLease(l ipam.Lease) bool {
	is := func(text string) bool {
		a, err := readAddress(text)
		return err == nil && a == l.Addr
	}
	for _, n := range k.networks {
		for _, c := range n.IPAM.Config {
			if is(c.Gateway) {
				return true
			}
			if p, err := netip.ParsePrefix(c.Subnet); err == nil && p.Contains(l.Addr) && strings.HasPrefix(l.Owner, gatewayOwner("")) {
				return true
			}
			for _, aux := range c.AuxAddress {
				if is(aux) {
					return true
				}
			}
		}
	}
	for _, e := range k.endpoints {
		if is(e.IPv4Address) || is(e.IPv6Address) {
			return true
		}
	}
	return false
}

// endpointHas says whether an endpoint that is held is the owner of a lease.
func (d *Driver) endpointHas(owner string) bool {
	id, ok := strings.CutPrefix(owner, endpointLease(""))
	if !ok {
		return false
	}
	_, ok = d.find(endpointKey(id))
	return ok
}
