package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// WhyService is the part of Service that this file serves.
type WhyService interface {
	// Why tells all that is known of an address; q.Address is a MAC or IP address.
	Why(ctx context.Context, q WhyQuery) (Why, error)
	// Talkers tells who sends most.
	Talkers(ctx context.Context, q TalkersQuery) (Talkers, error)
}

// WhyQuery asks after an address.
type WhyQuery struct {
	Address string // MAC or IP
	Bridge  string // "": all
}

// Why is all that the switch knows of an address.
type Why struct {
	Address string `json:"address"`
	Bridge  string `json:"bridge,omitempty"` // as asked; "": all

	Verdict        string   `json:"verdict"`                  // in a sentence: where it is, and how it is doing
	Contradictions []string `json:"contradictions,omitempty"` // what cannot all be right, such as one IP and two MACs
	Try            []string `json:"try,omitempty"`            // what to do next

	Places    []WhyPlace `json:"places"`          // where its MAC addresses are, or were
	Neighbors []Neighbor `json:"neighbors"`       // what ARP and ND said of it
	Drops     []WhyDrop  `json:"drops"`           // that named it lately
	Since     *time.Time `json:"since,omitempty"` // how far back the flight recorder's drops reach; left out: it is off, or holds none
	Recorder  bool       `json:"recorder"`        // whether it is on
}

// WhyPlace is where a MAC address is.
type WhyPlace struct {
	Bridge string `json:"bridge"`
	VLAN   int    `json:"vlan"`
	MAC    string `json:"mac"`
	Port   string `json:"port"`
	Gone   string `json:"gone,omitempty"` // it is not there any more: aged, evicted, or forgotten
	Static bool   `json:"static,omitempty"`
	Own    bool   `json:"own,omitempty"` // the host's own, by a local or internal port

	Type    string    `json:"type,omitempty"`   // of the port
	Remote  string    `json:"remote,omitempty"` // of a tunnel port: the other end
	State   string    `json:"state,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of State
	MTU     int       `json:"mtu,omitempty"`
	Limits  []string  `json:"limits,omitempty"` // storm limits and what hit them
	Dropped uint64    `json:"dropped,omitempty"`

	Learned   *time.Time `json:"learned,omitempty"` // left out: static, or longer ago than is remembered
	LastHeard *time.Time `json:"last_heard,omitempty"`
	GoneAt    *time.Time `json:"gone_at,omitempty"`
	Moves     uint64     `json:"moves,omitempty"` // since the switch remembers
	Moved     []MACMove  `json:"moved,omitempty"` // the last ones, the latest first
	Flap      *FDBFlap   `json:"flap,omitempty"`  // it is held, since it flapped
}

// MACMove is one move of a MAC address between ports.
type MACMove struct {
	Time time.Time `json:"time"`
	From string    `json:"from"`
	To   string    `json:"to"`
}

// Neighbor is an IP address and the MAC address that claimed it.
type Neighbor struct {
	Bridge    string    `json:"bridge"`
	VLAN      int       `json:"vlan"`
	IP        string    `json:"ip"`
	MAC       string    `json:"mac"`
	Port      string    `json:"port"` // by which it said so
	By        string    `json:"by"`   // arp-request, arp-reply, arp-announcement, nd-solicitation, nd-advertisement
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`

	Conflict *AddressConflict `json:"conflict,omitempty"`
}

// AddressConflict is one IP address that two MAC addresses claimed within a minute.
type AddressConflict struct {
	MAC   string    `json:"mac"` // the other one
	Port  string    `json:"port"`
	Count uint64    `json:"count"` // times that it went from one to the other so fast
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// WhyDrop is one reason at one port for which frames that named the address were
// dropped.
type WhyDrop struct {
	Bridge    string    `json:"bridge"`
	Port      string    `json:"port"`
	Reason    string    `json:"reason"`
	Count     uint64    `json:"count"` // estimated, where frames came faster than the recorder takes them
	As        string    `json:"as"`    // how they named it: source, destination, or both
	LastSeen  time.Time `json:"last_seen"`
	LastFrame string    `json:"last_frame"`
	Help      string    `json:"help"`
}

// TalkersQuery asks who sends most.
type TalkersQuery struct {
	Bridge string        // "": all
	Window time.Duration // how far back; 0: DefaultTalkersWindow
	N      int           // how many MACs, and flows; 0: DefaultTalkers
}

// Bounds of TalkersQuery.
const (
	DefaultTalkersWindow = 5 * time.Second
	MaxTalkersWindow     = time.Minute
	DefaultTalkers       = 20
	MaxTalkers           = 1000
)

// Talkers are those who send most, estimated from the flight recorder.
type Talkers struct {
	Recorder bool         `json:"recorder"` // false: it is off, and nothing is known
	Note     string       `json:"note,omitempty"`
	Window   float64      `json:"window"` // seconds that were looked at
	Seen     uint64       `json:"seen"`   // frames that the recorder holds of them
	Frames   uint64       `json:"frames"` // that they stand for
	MACs     []MACTalker  `json:"macs"`
	Flows    []FlowTalker `json:"flows"`
}

// MACTalker is a MAC address that sends.
type MACTalker struct {
	Bridge string  `json:"bridge"`
	VLAN   int     `json:"vlan"`
	MAC    string  `json:"mac"`
	Port   string  `json:"port"`         // by which it came last
	IP     string  `json:"ip,omitempty"` // one that ARP or ND named with it
	Frames float64 `json:"frames"`       // a second; a super-frame is one
	Bits   float64 `json:"bits"`         // a second
}

// FlowTalker is a flow: a 5-tuple in a VLAN, or what two MAC addresses say to each
// other that is not IP.
type FlowTalker struct {
	Bridge  string  `json:"bridge"`
	VLAN    int     `json:"vlan"`
	Port    string  `json:"port"`             // by which it came last
	Output  string  `json:"output,omitempty"` // where it went, if to one port
	Proto   string  `json:"proto"`            // tcp, udp, icmp, a number; or arp, or 0x88cc
	Src     string  `json:"src"`              // IP, or MAC
	SrcPort int     `json:"src_port,omitempty"`
	Dst     string  `json:"dst"`
	DstPort int     `json:"dst_port,omitempty"`
	Frames  float64 `json:"frames"` // a second; a super-frame is one
	Bits    float64 `json:"bits"`   // a second
}

// whyEndpoints is this file's part of endpoints.
func (s *Server) whyEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/why":     {http.MethodGet: endpoint{[]string{"address", "bridge"}, s.why}},
		"/v1/talkers": {http.MethodGet: endpoint{[]string{"window", "bridge", "n"}, s.talkers}},
	}
}

func (s *Server) why(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	address, err := ParseAddress(q.str("address"))
	if err != nil {
		return nil, err
	}
	return answer(s.svc.Why(r.Context(), WhyQuery{Address: address, Bridge: q.str("bridge")}))
}

func (s *Server) talkers(_ http.ResponseWriter, r *http.Request, q query) (any, error) {
	t := TalkersQuery{Bridge: q.str("bridge"), Window: DefaultTalkersWindow, N: DefaultTalkers}
	if v := q.str("window"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 100*time.Millisecond || d > MaxTalkersWindow {
			return nil, badParam("window", v, "a time from 100ms to 1m, such as 5s")
		}
		t.Window = d
	}
	if v := q.str("n"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > MaxTalkers {
			return nil, badParam("n", v, fmt.Sprintf("a number from 1 to %d", MaxTalkers))
		}
		t.N = n
	}
	return answer(s.svc.Talkers(r.Context(), t))
}

// ParseAddress reads a MAC address or an IP address, and returns it as it is spelled
// everywhere. The error is an *Error.
func ParseAddress(s string) (string, error) {
	if mac, err := net.ParseMAC(s); err == nil && len(mac) == 6 {
		return mac.String(), nil
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), nil
	}
	return "", badParam("address", s, "a MAC address such as 02:00:00:00:00:01, or an IP address such as 10.0.0.5")
}

// Why tells all that is known of a MAC or IP address.
func (c *Client) Why(ctx context.Context, q WhyQuery) (Why, error) {
	return call[Why](ctx, c, http.MethodGet, "why", params("address", q.Address, "bridge", q.Bridge), nil)
}

// Talkers tells who sends most.
func (c *Client) Talkers(ctx context.Context, q TalkersQuery) (Talkers, error) {
	p := params("bridge", q.Bridge)
	if q.Window > 0 {
		p.Set("window", q.Window.String())
	}
	if q.N > 0 {
		p.Set("n", strconv.Itoa(q.N))
	}
	return call[Talkers](ctx, c, http.MethodGet, "talkers", p, nil)
}
