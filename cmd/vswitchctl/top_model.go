package main

import (
	"cmp"
	"os"
	"slices"
	"time"

	"vswitch/ctl/api"
)

// topSample is what one look at the daemon brought.
type topSample struct {
	at      time.Time // of status
	version api.Version
	status  api.Status
	workers []api.WorkerStats
	talkers api.Talkers
}

// topData is what top shows; -o json prints it.
type topData struct {
	Time     time.Time        `json:"time"`
	Host     string           `json:"host"`
	Version  string           `json:"version"`
	Uptime   float64          `json:"uptime"`   // seconds
	Interval float64          `json:"interval"` // seconds that the rates are of
	Total    topRates         `json:"total"`    // of all ports but patches, whose frames others count
	NotUp    int              `json:"not_up"`   // ports
	Warnings []string         `json:"warnings,omitempty"`
	Ports    []topPort        `json:"ports"`
	Tunnels  []topTunnel      `json:"tunnels"`
	MACs     []api.MACTalker  `json:"macs"`
	Flows    []api.FlowTalker `json:"flows"`
	Note     string           `json:"note,omitempty"` // on MACs and Flows
	Workers  []topWorker      `json:"workers"`
}

// topRates are a second.
type topRates struct {
	RxFrames float64 `json:"rx_frames"`
	RxBits   float64 `json:"rx_bits"`
	TxFrames float64 `json:"tx_frames"`
	TxBits   float64 `json:"tx_bits"`
	Drops    float64 `json:"drops"`
}

func (r *topRates) add(o topRates) {
	r.RxFrames += o.RxFrames
	r.RxBits += o.RxBits
	r.TxFrames += o.TxFrames
	r.TxBits += o.TxBits
	r.Drops += o.Drops
}

type topPort struct {
	Bridge string `json:"bridge"`
	Port   string `json:"port"`
	Type   string `json:"type"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	topRates
	Lately []float64 `json:"lately"` // bits a second, both ways, of the last looks

	idle bool // down, and that is all right
}

type topTunnel struct {
	Bridge    string     `json:"bridge"`
	Port      string     `json:"port"`
	Type      string     `json:"type"`
	Remote    string     `json:"remote"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"`
	BFD       string     `json:"bfd,omitempty"`
	PathMTU   int        `json:"path_mtu,omitempty"`
	LastHeard *time.Time `json:"last_heard,omitempty"`
	topRates
}

type topWorker struct {
	Worker   int     `json:"worker"`
	Ports    int     `json:"ports"`
	Busy     float64 `json:"busy"` // shares of the interval, 0 to 1
	Spinning float64 `json:"spinning"`
	Frames   float64 `json:"frames"` // a second
	Batch    float64 `json:"batch"`  // frames, on average
	Wakeups  float64 `json:"wakeups"`
	Buffers  int     `json:"buffers"`
	Used     int     `json:"buffers_used"`
}

// lately is how many looks are remembered of each port.
const lately = 120

// topModel makes rates of looks.
//
// Thread-safety: none.
type topModel struct {
	host    string
	last    *topSample // nil: none to compare with
	history map[[2]string][]float64
	data    *topData
}

func newTopModel() *topModel {
	host, _ := os.Hostname()
	return &topModel{host: host, history: map[[2]string][]float64{}, data: &topData{Host: host}}
}

// forget starts anew, after looks that failed: a rate over them would be none of now.
func (m *topModel) forget() { m.last = nil }

// add takes a look. The first one has no rates.
func (m *topModel) add(s topSample) {
	was := m.last
	if was != nil && (was.version.PID != s.version.PID || !was.version.Started.Equal(s.version.Started) || !s.at.After(was.at)) {
		was = nil // another daemon: it counts from 0
	}
	d := &topData{
		Time: s.at, Host: m.host, Version: s.version.Version, Uptime: max(s.at.Sub(s.version.Started).Seconds(), 0),
		Warnings: s.status.Warnings, Ports: []topPort{}, Tunnels: []topTunnel{}, MACs: s.talkers.MACs, Flows: s.talkers.Flows,
		Note: s.talkers.Note, Workers: []topWorker{},
	}
	if was != nil {
		d.Interval = s.at.Sub(was.at).Seconds()
	}
	m.ports(d, was, &s)
	m.workers(d, was, &s)
	m.data, m.last = d, &s
}

// a rate is what came in an interval, a second: nothing where a counter began anew.
func perSecond(was, is uint64, seconds float64) float64 {
	if seconds <= 0 || is < was {
		return 0
	}
	return float64(is-was) / seconds
}

func (m *topModel) ports(d *topData, was, s *topSample) {
	before := map[[2]string]api.PortCounters{}
	if was != nil {
		for _, b := range was.status.Bridges {
			for _, p := range b.Ports {
				before[[2]string{b.Name, p.Name}] = p.Counters
			}
		}
	}
	seen := map[[2]string]bool{}
	for _, b := range s.status.Bridges {
		for _, p := range b.Ports {
			k := [2]string{b.Name, p.Name}
			seen[k] = true
			c, r := p.Counters, topRates{}
			if o, known := before[k]; known {
				sec := d.Interval
				r = topRates{
					RxFrames: perSecond(o.RxFrames, c.RxFrames, sec), RxBits: 8 * perSecond(o.RxBytes, c.RxBytes, sec),
					TxFrames: perSecond(o.TxFrames, c.TxFrames, sec), TxBits: 8 * perSecond(o.TxBytes, c.TxBytes, sec),
					Drops: perSecond(o.Dropped, c.Dropped, sec),
				}
				m.history[k] = append(m.history[k], r.RxBits+r.TxBits)
				if h := m.history[k]; len(h) > lately {
					m.history[k] = slices.Clone(h[len(h)-lately:])
				}
			}
			row := topPort{
				Bridge: b.Name, Port: p.Name, Type: p.Type, State: p.State, Reason: p.Reason, topRates: r, Lately: slices.Clone(m.history[k]), idle: idle(p),
			}
			d.Ports = append(d.Ports, row)
			if p.State != api.PortUp && p.State != api.PortSelf && !row.idle {
				d.NotUp++
			}
			if p.Type != "patch" {
				d.Total.add(r)
			}
			if t := p.Tunnel; t != nil {
				row := topTunnel{
					Bridge: b.Name, Port: p.Name, Type: p.Type, Remote: cmp.Or(t.RemoteAddr, t.Remote), State: p.State, Reason: p.Reason,
					PathMTU: t.PathMTU, LastHeard: t.LastHeard, topRates: r,
				}
				if t.BFD != nil {
					row.BFD = t.BFD.State
				}
				d.Tunnels = append(d.Tunnels, row)
			}
		}
	}
	for k := range m.history {
		if !seen[k] {
			delete(m.history, k)
		}
	}
}

// workers turns shares of the time since the start into shares of the interval.
func (m *topModel) workers(d *topData, was, s *topSample) {
	for i, w := range s.workers {
		row := topWorker{Worker: w.Worker, Ports: len(w.Ports), Busy: w.Busy, Spinning: w.Spinning, Batch: w.MeanBatch, Buffers: w.Buffers, Used: w.Buffers - w.Free}
		if was != nil && i < len(was.workers) {
			o := was.workers[i]
			up, before := s.at.Sub(s.version.Started).Seconds(), was.at.Sub(was.version.Started).Seconds()
			share := func(o, n float64) float64 { return min(max((n*up-o*before)/(up-before), 0), 1) }
			row.Busy, row.Spinning = share(o.Busy, w.Busy), share(o.Spinning, w.Spinning)
			row.Frames, row.Wakeups = perSecond(o.Frames, w.Frames, d.Interval), perSecond(o.Wakeups, w.Wakeups, d.Interval)
			if row.Batch = 0; w.Batches > o.Batches && w.Frames >= o.Frames {
				row.Batch = float64(w.Frames-o.Frames) / float64(w.Batches-o.Batches)
			}
		}
		d.Workers = append(d.Workers, row)
	}
}
