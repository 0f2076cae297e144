package docker

import (
	"context"
	"encoding/json"
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
		chosen, err := d.choose(p.Name, asked)
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

// choose finds a free port of the host for each that is asked for.
func (d *Driver) choose(port string, asked []binding) ([]config.Publish, error) {
	var taken []config.Publish
	for name, list := range d.o.Switch.Published() {
		if name != port {
			taken = append(taken, list...)
		}
	}
	var chosen []config.Publish
	for _, b := range asked {
		p, err := d.chooseOne(b, slices.Concat(taken, chosen))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

func (d *Driver) chooseOne(b binding, taken []config.Publish) (config.Publish, error) {
	p := config.Publish{To: b.Port}
	switch b.Proto {
	case unix.IPPROTO_TCP:
		p.Proto = "tcp"
	case unix.IPPROTO_UDP:
		p.Proto = "udp"
	default:
		return p, fmt.Errorf("port %d of the container has protocol %d; allowed to publish: tcp, udp", b.Port, b.Proto)
	}
	if b.Port == 0 {
		return p, fmt.Errorf("port 0 of the container cannot be published; allowed: 1 to 65535")
	}
	if b.HostIP != "" {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil || a.Zone() != "" || a.IsMulticast() {
			return p, fmt.Errorf("%q is not an address of the host to publish at", b.HostIP)
		}
		if a = a.Unmap(); !a.IsUnspecified() {
			p.Host = a
		}
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
	var why error
	for n := range last - first + 1 {
		p.Port = uint16(first + (from-first+n)%(last-first+1))
		if slices.ContainsFunc(taken, func(o config.Publish) bool { return clash(p, o) }) {
			why = fmt.Errorf("port %d/%s of the host is published already", p.Port, p.Proto)
		} else if err := bindable(p); err != nil {
			why = err
		} else {
			return p, nil
		}
	}
	if last > first {
		why = fmt.Errorf("no port of %d to %d is free: %w", first, last, why)
	}
	return p, why
}

// clash says whether both want the same port of the host.
func clash(p, q config.Publish) bool {
	return p.Port == q.Port && p.Proto == q.Proto && (!p.Host.IsValid() || !q.Host.IsValid() || p.Host == q.Host)
}

// bindable says whether a process of the host has the port: what comes for it would reach
// the container instead, and nobody would know why.
func bindable(p config.Publish) error {
	at := netip.AddrPortFrom(p.Host, p.Port).String()
	if !p.Host.IsValid() {
		at = fmt.Sprintf(":%d", p.Port)
	}
	var err error
	if p.Proto == "tcp" {
		var l net.Listener
		if l, err = net.Listen("tcp", at); err == nil {
			l.Close()
		}
	} else {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", at); err == nil {
			c.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("port %d/%s of the host cannot be published: %w", p.Port, p.Proto, err)
	}
	return nil
}
