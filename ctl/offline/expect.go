package offline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	vswitch "vswitch/switch"
)

// Expectation is what should become of the frames of a capture.
type Expectation struct {
	Ports  map[string]Link `yaml:"ports,omitempty"` // by name
	Frames []Frame         `yaml:"frames"`          // those that come in, in order
	FDB    []MAC           `yaml:"fdb,omitempty"`   // all that is learned at the end; left out: not looked at
}

// Frame is one frame of a capture and what becomes of it.
type Frame struct {
	Number int    `yaml:"frame" json:"frame"` // in the file, from 1
	InPort string `yaml:"in_port" json:"in_port"`
	Out    []Out  `yaml:"out,omitempty" json:"out,omitempty"`   // by port
	Drop   Drops  `yaml:"drop,omitempty" json:"drop,omitempty"` // empty: it was not

	Summary string `yaml:"-" json:"summary,omitempty"`
}

// Out is a frame that leaves by a port.
type Out struct {
	Port   string `yaml:"port" json:"port"`
	VLAN   *int   `yaml:"vlan,omitempty" json:"vlan,omitempty"` // of its tag; left out: it has none
	PCP    int    `yaml:"pcp,omitempty" json:"pcp,omitempty"`
	Answer bool   `yaml:"answer,omitempty" json:"answer,omitempty"` // made by the switch, such as an ICMP answer
	Count  int    `yaml:"count,omitempty" json:"count,omitempty"`   // frames like it in a row; 0: one
}

// same reports whether two are equal but for how many they are.
func (o Out) same(p Out) bool {
	vlan := o.VLAN == nil && p.VLAN == nil || o.VLAN != nil && p.VLAN != nil && *o.VLAN == *p.VLAN
	return vlan && o.Port == p.Port && o.PCP == p.PCP && o.Answer == p.Answer
}

func (o Out) equal(p Out) bool { return o.same(p) && max(o.Count, 1) == max(p.Count, 1) }

func (o Out) String() string {
	s := "leaves by " + o.Port + " untagged"
	if o.VLAN != nil {
		s = fmt.Sprintf("leaves by %s tagged %d", o.Port, *o.VLAN)
	}
	if o.PCP > 0 {
		s += fmt.Sprintf(" priority %d", o.PCP)
	}
	if o.Count > 1 {
		s += fmt.Sprintf(", in %d frames", o.Count)
	}
	if o.Answer {
		s = strings.Replace(s, "leaves by", "is answered by", 1)
	}
	return s
}

// Drop is why a frame, or a copy of it, was dropped at a port. Port "" is any.
type Drop struct {
	Port   string `yaml:"port,omitempty" json:"port,omitempty"`
	Reason string `yaml:"reason" json:"reason"`
}

func (d Drop) String() string {
	if d.Port == "" {
		return "is dropped: " + d.Reason
	}
	return "is dropped at " + d.Port + ": " + d.Reason
}

// matches reports whether what happened is what was expected.
func (d Drop) matches(happened Drop) bool {
	return d.Reason == happened.Reason && (d.Port == "" || d.Port == happened.Port)
}

// Drops is a list of drops. In YAML, one may stand alone, and be its reason alone.
type Drops []Drop

// UnmarshalYAML reads a reason, {port: …, reason: …}, or a list of those.
func (d *Drops) UnmarshalYAML(n *yaml.Node) error {
	all := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		all = n.Content
	}
	for _, n := range all {
		var one Drop
		switch n.Kind {
		case yaml.ScalarNode:
			one.Reason = n.Value
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				switch key, value := n.Content[i].Value, n.Content[i+1]; {
				case value.Kind != yaml.ScalarNode || key != "port" && key != "reason":
					return fmt.Errorf("line %d: a drop is a reason, or has port and reason", n.Line)
				case key == "port":
					one.Port = value.Value
				default:
					one.Reason = value.Value
				}
			}
		default:
			return fmt.Errorf("line %d: a drop is a reason, or has port and reason", n.Line)
		}
		if !slices.ContainsFunc(vswitch.Reasons(), func(r vswitch.Reason) bool { return r.String() == one.Reason }) {
			return fmt.Errorf("line %d: %q is no reason for a drop; `vswitchctl drops` and trace show how they are called, such as vlan-not-trunked", n.Line, one.Reason)
		}
		*d = append(*d, one)
	}
	return nil
}

// MAC is a learned MAC address.
type MAC struct {
	Bridge string `yaml:"bridge" json:"bridge"`
	VLAN   int    `yaml:"vlan" json:"vlan"`
	MAC    string `yaml:"mac" json:"mac"`
	Port   string `yaml:"port" json:"port"`
}

func (m MAC) compare(o MAC) int {
	return cmp.Or(strings.Compare(m.Bridge, o.Bridge), cmp.Compare(m.VLAN, o.VLAN), strings.Compare(m.MAC, o.MAC), strings.Compare(m.Port, o.Port))
}

func (m MAC) String() string {
	return fmt.Sprintf("%s in VLAN %d of %s is behind %s", m.MAC, m.VLAN, m.Bridge, m.Port)
}

// MaxExpectation is the size of the largest file of expectations, in bytes.
const MaxExpectation = 64 << 20

// ReadExpectation reads expectations in YAML.
func ReadExpectation(text []byte) (*Expectation, error) {
	if len(text) > MaxExpectation {
		return nil, fmt.Errorf("%d bytes of expectations: at most %d are read", len(text), MaxExpectation)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	e := &Expectation{}
	if err := dec.Decode(e); err != nil {
		if errors.Is(err, io.EOF) {
			return e, nil // an empty file: nothing comes in
		}
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return nil, errors.New("one YAML document is wanted, and something follows it")
	}
	for name, l := range e.Ports {
		if l.MTU < 0 || l.MTU > 65535 {
			return nil, fmt.Errorf("ports: %s: mtu %d: 68 to 65535 bytes are wanted", name, l.MTU)
		}
	}
	last := 0
	for i := range e.Frames {
		f := &e.Frames[i]
		if f.Number <= last {
			return nil, fmt.Errorf("frames: frame %d stands behind frame %d: they are wanted in the capture's order, from 1", f.Number, last)
		}
		last = f.Number
		slices.SortStableFunc(f.Out, func(a, b Out) int { return strings.Compare(a.Port, b.Port) })
	}
	for i := range e.FDB {
		mac, err := net.ParseMAC(e.FDB[i].MAC)
		if err != nil {
			return nil, fmt.Errorf("fdb: %q is no MAC address", e.FDB[i].MAC)
		}
		e.FDB[i].MAC = mac.String()
	}
	slices.SortFunc(e.FDB, MAC.compare)
	return e, nil
}

// YAML writes expectations as ReadExpectation reads them, with a comment for each
// frame that says what it is.
func (e *Expectation) YAML() ([]byte, error) {
	var n yaml.Node
	if err := n.Encode(e); err != nil {
		return nil, fmt.Errorf("encode expectations: %w", err)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		list := n.Content[i+1]
		switch n.Content[i].Value {
		case "frames":
			for j, f := range list.Content {
				if j < len(e.Frames) && e.Frames[j].Summary != "" {
					f.HeadComment = e.Frames[j].Summary
				}
				flow(f)
			}
		case "fdb":
			for _, m := range list.Content {
				m.Style = yaml.FlowStyle
			}
		}
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return nil, fmt.Errorf("encode expectations: %w", err)
	}
	return b.Bytes(), enc.Close()
}

// flow puts each of a frame's outputs and drops on a line of its own.
func flow(f *yaml.Node) {
	for i := 0; i+1 < len(f.Content); i += 2 {
		if list := f.Content[i+1]; list.Kind == yaml.SequenceNode {
			for _, x := range list.Content {
				x.Style = yaml.FlowStyle
			}
		}
	}
}
