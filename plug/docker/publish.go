package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/plug/held"
)

// binding is a port that docker run -p asks for (libnetwork's types.PortBinding).
type binding struct {
	Proto          uint8 // IPPROTO_*
	HostIP         string
	Port, HostPort uint16 // HostPort 0: any that is free
	HostPortEnd    uint16 // the last of those that HostPort may be; 0: HostPort
}

// Docker's own key in an endpoint's options, and bounds of what it may hold.
const (
	portMapKey   = "com.docker.network.portmap"
	maxPublished = 256

	// Ports that nobody chose come of the range that is for it (RFC 6335, section 6).
	firstDynamic, lastDynamic = 49153, 65535
)

type publishRequest struct {
	NetworkID, EndpointID string
	Options               map[string]json.RawMessage
}

// publish is ProgramExternalConnectivity. Docker calls it for the one endpoint of a container
// that has its default route, also when there is nothing to publish.
func (d *Driver) publish(ctx context.Context, q publishRequest) (none, error) {
	var asked []binding
	if text, ok := q.Options[portMapKey]; ok {
		if err := json.Unmarshal(text, &asked); err != nil {
			return none{}, fmt.Errorf("%s: %w", portMapKey, err)
		}
	}
	if len(asked) > maxPublished {
		return none{}, fmt.Errorf("%d ports are to be published; allowed: %d of one container", len(asked), maxPublished)
	}
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	i, ok := d.find(endpointKey(q.EndpointID))
	e, isOne := endpointOf(i)
	if !ok || !isOne {
		return none{}, fmt.Errorf("endpoint %s is not known to the switch", q.EndpointID)
	}
	if slices.Equal(e.Asked, asked) {
		return none{}, nil
	}
	return none{}, d.setPublished(ctx, i, e, asked)
}

// unpublish is RevokeExternalConnectivity.
func (d *Driver) unpublish(ctx context.Context, q endpointRequest) (none, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	i, ok := d.find(endpointKey(q.EndpointID))
	e, isOne := endpointOf(i)
	if !ok || !isOne || len(e.Asked) == 0 {
		return none{}, nil
	}
	return none{}, d.setPublished(ctx, i, e, nil)
}

// setPublished makes asked the ports of an endpoint. The caller has the turn.
func (d *Driver) setPublished(ctx context.Context, i held.Item, e endpoint, asked []binding) (err error) {
	p := ownPort(&i)
	delete(p.Options, "publish")
	if len(asked) > 0 {
		on, _ := d.find(networkKey(e.Network))
		if n, ok := networkOf(on); !ok || n.Host == "" {
			return fmt.Errorf("publish ports of %s: this host has no address in its network, so it cannot reach it; allowed: a network with a gateway of the switch", e.ID)
		}
		chosen, err := d.choose(p.Name, &e, asked)
		if err != nil {
			return err
		}
		var words []string
		for _, c := range chosen {
			words = append(words, c.String())
		}
		p.Options["publish"] = strings.Join(words, ",")
		if err := canonicalise(p.Options, config.PlugPort); err != nil {
			return err
		}
	}
	e.Asked = asked
	if i.Data, err = json.Marshal(e); err != nil {
		return err
	}
	if err := d.hold(ctx, []held.Item{i}); err != nil {
		return fmt.Errorf("publish ports of endpoint %s: %w", e.ID, err)
	}
	return nil
}

// ownPort gives an item a port of its own to change: those of the store are shared.
func ownPort(i *held.Item) *config.Port {
	i.Ports = slices.Clone(i.Ports)
	o := config.Options{}
	maps.Copy(o, i.Ports[0].Options)
	i.Ports[0].Options = o
	return &i.Ports[0]
}

// half is a published port in one family: a container has addresses of both or of one, and what
// two containers publish without an address of the host clashes where they have one in common.
// Since Docker 28, a container may have its default route of each family in another network,
// and Docker asks both for its ports.
type half struct {
	config.Publish
	v4 bool
}

// halves are those of a port that leads to addresses of these families.
func halves(p config.Publish, v4, v6 bool) (list []half) {
	for _, h := range []half{{p, true}, {p, false}} {
		if (h.v4 && v4 || !h.v4 && v6) && (!p.Host.IsValid() || p.Host.Is4() == h.v4) {
			list = append(list, h)
		}
	}
	return list
}

// families says of which an endpoint has addresses.
func (e *endpoint) families() (v4, v6 bool) {
	for _, a := range e.Addresses {
		v4, v6 = v4 || a.Addr().Is4(), v6 || a.Addr().Is6()
	}
	return v4, v6
}

// choose finds a free port of the host for each that is asked for.
func (d *Driver) choose(port string, e *endpoint, asked []binding) ([]config.Publish, error) {
	others := map[string]endpoint{}
	for _, i := range d.o.Switch.Held() {
		if o, ok := endpointOf(i); ok {
			others[i.Ports[0].Name] = o
		}
	}
	var taken []half
	for name, list := range d.o.Switch.Published() {
		v4, v6 := true, true // of the operator's
		if o, ok := others[name]; ok {
			v4, v6 = o.families()
		}
		for _, p := range list {
			if name != port {
				taken = append(taken, halves(p, v4, v6)...)
			}
		}
	}
	var chosen []config.Publish
	for _, b := range asked {
		p, has, err := d.chooseOne(b, e, taken)
		if err != nil {
			return nil, err
		}
		chosen, taken = append(chosen, p), append(taken, has...)
	}
	return chosen, nil
}

func (d *Driver) chooseOne(b binding, e *endpoint, taken []half) (p config.Publish, has []half, err error) {
	p.To = b.Port
	switch b.Proto {
	case unix.IPPROTO_TCP:
		p.Proto = "tcp"
	case unix.IPPROTO_UDP:
		p.Proto = "udp"
	case unix.IPPROTO_SCTP:
		return p, nil, fmt.Errorf("port %d/sctp of the container cannot be published; allowed: tcp, udp", b.Port)
	default:
		return p, nil, fmt.Errorf("port %d of the container has protocol %d; allowed to publish: tcp, udp", b.Port, b.Proto)
	}
	if b.Port == 0 {
		return p, nil, fmt.Errorf("port 0 of the container cannot be published; allowed: 1 to 65535")
	}
	if b.HostIP != "" {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil || a.Zone() != "" || a.IsMulticast() {
			return p, nil, fmt.Errorf("%q is not an address of the host to publish at", b.HostIP)
		}
		if a = a.Unmap(); !a.IsUnspecified() {
			p.Host = a
		}
	}
	v4, v6 := e.families()
	if has = halves(p, v4, v6); len(has) == 0 {
		return p, nil, fmt.Errorf("port %d/%s of the container cannot be published at %s: it has no address of that family in this network", p.To, p.Proto, b.HostIP)
	}
	first, last := uint32(b.HostPort), uint32(max(b.HostPort, b.HostPortEnd))
	from := first
	if first == 0 {
		first, last = firstDynamic, lastDynamic
		d.mu.Lock()
		from = first + uint32(d.rolling%uint64(last-first+1))
		d.rolling++
		d.mu.Unlock()
	}
	for n := range last - first + 1 {
		p.Port = uint16(first + (from-first+n)%(last-first+1))
		has = halves(p, v4, v6)
		if err = free(has, taken); err == nil {
			return p, has, nil
		}
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return p, nil, err // with any other port, too
		}
	}
	if last > first {
		err = fmt.Errorf("no port of %d to %d is free: %w", first, last, err)
	}
	return p, nil, err
}

// free says why a port of the host cannot be had.
func free(has, taken []half) error {
	for _, h := range has {
		if slices.ContainsFunc(taken, h.clash) {
			return fmt.Errorf("port %d/%s of the host is published already", h.Port, h.Proto)
		}
		if err := h.bindable(); err != nil {
			return fmt.Errorf("port %d/%s of the host cannot be published: %w", h.Port, h.Proto, err)
		}
	}
	return nil
}

// clash says whether both want the same port of the host.
func (h half) clash(o half) bool {
	return h.v4 == o.v4 && h.Port == o.Port && h.Proto == o.Proto && (!h.Host.IsValid() || !o.Host.IsValid() || h.Host == o.Host)
}

// bindable says whether a process of the host has the port: what comes for it would reach
// the container instead, and nobody would know why.
func (h half) bindable() error {
	host, family := h.Host, "6"
	if h.v4 {
		family = "4"
	}
	switch {
	case host.IsValid():
	case h.v4:
		host = netip.IPv4Unspecified()
	default:
		host = netip.IPv6Unspecified()
	}
	at := netip.AddrPortFrom(host, h.Port).String()
	if h.Proto == "tcp" {
		l, err := net.Listen("tcp"+family, at)
		if err == nil {
			l.Close()
		}
		return err
	}
	c, err := net.ListenPacket("udp"+family, at)
	if err == nil {
		c.Close()
	}
	return err
}
