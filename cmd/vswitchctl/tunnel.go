package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) tunnel() *cobra.Command {
	return group("tunnel", "Show the tunnels to other hosts", "  vswitchctl tunnel show br0", a.tunnelShow())
}

func (a *app) tunnelShow() *cobra.Command {
	return &cobra.Command{
		Use:        "show [BRIDGE|PORT]",
		SuggestFor: []string{"ls", "list", "status"},
		Short:      "Show tunnel ports: where they lead, how they are, what they carried",
		Long: `Show tunnel ports, those of meshes among them. MTU is the largest IP packet that fits inside;
RX and TX are frames and bytes; beneath a tunnel that is not well, why. add-port makes a tunnel
(type=vxlan, gre or geneve), and mesh add one to each of many hosts.`,
		Example: "  vswitchctl tunnel show br0",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			tunnels, err := c.Tunnels(cmd.Context(), "")
			if err == nil && len(args) > 0 {
				all := tunnels
				tunnels = slices.DeleteFunc(slices.Clone(all), func(t api.TunnelStatus) bool { return t.Bridge != args[0] && t.Port != args[0] })
				if len(tunnels) == 0 { // a bridge without tunnels, or nothing
					tunnels, err = c.Tunnels(cmd.Context(), args[0])
				}
				var refusal *api.Error
				if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
					refusal.Message = fmt.Sprintf("no bridge and no tunnel port is named %q", args[0])
				}
			}
			if err != nil {
				return err
			}
			return a.print(tunnels, func() string { return a.tunnelsText(tunnels) })
		},
		ValidArgsFunction: a.complete(a.bridgesAndTunnels),
	}
}

// tunnelsText puts endpoints beneath where 100 columns do not hold them.
func (a *app) tunnelsText(tunnels []api.TunnelStatus) string {
	if len(tunnels) == 0 {
		return "no tunnels; `vswitchctl add-port BR NAME type=vxlan remote_ip=HOST` adds one\n"
	}
	t := a.tunnelRows(tunnels, true)
	if _, w := t.widths(); w > width {
		t = a.tunnelRows(tunnels, false)
	}
	return t.String()
}

func (a *app) tunnelRows(tunnels []api.TunnelStatus, endpoints bool) *table {
	titles := []string{"BRIDGE", "PORT", "TYPE", "ENDPOINT", "REMOTE", "KEY", ">MTU", "STATE", "BFD", ">RX", ">TX", "LAST HEARD"}
	const endpointColumn = 3
	if !endpoints {
		titles = slices.Delete(titles, endpointColumn, endpointColumn+1)
	}
	t := newTable("", titles...)
	for _, s := range tunnels {
		mtu, bfd, endpoint := "-", "-", "-"
		if s.MTU > 0 {
			mtu = strconv.Itoa(s.MTU)
		}
		if s.BFD != nil {
			bfd = bfdState(s.BFD.State)
		}
		if s.Endpoint != "" {
			endpoint = strings.TrimPrefix(s.Endpoint, s.Type+" ")
		}
		c := s.Counters
		cells := []any{s.Bridge, s.Port, s.Type, endpoint, s.Remote, keyText(s), mtu, stateText(s.State), bfd,
			short(c.RxFrames) + "/" + short(c.RxBytes), short(c.TxFrames) + "/" + short(c.TxBytes), a.heard(s.LastHeard)}
		if !endpoints {
			cells = slices.Delete(cells, endpointColumn, endpointColumn+1)
		}
		r := t.add(cells...)
		if where := whereText(s, !endpoints); where != "" {
			r.under = append(r.under, where)
		}
		r.under = append(r.under, a.trouble(s.State, s.Reason, s.Since, s.BFD)...)
	}
	return t
}

// whereText says what the columns do not: what the remote resolved to, which
// address packets leave from, which socket they share.
func whereText(s api.TunnelStatus, endpoint bool) string {
	var facts []string
	if s.RemoteAddr != "" && s.RemoteAddr != s.Remote {
		facts = append(facts, s.Remote+" is "+s.RemoteAddr)
	}
	if s.LocalAddr != "" && !strings.Contains(s.Endpoint, s.LocalAddr) {
		facts = append(facts, "from "+s.LocalAddr)
	}
	if endpoint && s.Endpoint != "" {
		facts = append(facts, "endpoint "+s.Endpoint)
	}
	for _, n := range []struct {
		count uint64
		what  string
	}{
		{s.OptionsSkipped, "Geneve options skipped"}, {s.SequenceGaps, "frames missing by their numbers"}, {s.SequenceLate, "frames late by their numbers"},
	} {
		if n.count > 0 {
			facts = append(facts, fmt.Sprintf("%d %s", n.count, n.what))
		}
	}
	return strings.Join(facts, "; ")
}

// keyText is the key, or what comes in and what leaves where they differ.
func keyText(s api.TunnelStatus) string {
	text := func(key *uint32) string {
		if key == nil {
			return "-"
		}
		return strconv.FormatUint(uint64(*key), 10)
	}
	in, out := text(s.InKey), text(s.OutKey)
	if in == out {
		return in
	}
	return in + "/" + out
}

// heard is how long ago a tunnel's other end was heard.
func (a *app) heard(at *time.Time) string {
	if at == nil {
		return "never"
	}
	return ago(a.now().Sub(*at)) + " ago"
}

// trouble says why a tunnel is not up, for how long it has not been, and what a
// BFD session that is not up knows besides, unless that is the reason.
func (a *app) trouble(state, reason string, since time.Time, bfd *api.BFDStatus) (lines []string) {
	if state != api.PortUp && state != api.PortSelf {
		why := cmp.Or(reason, "no reason given")
		if !since.IsZero() {
			why = "for " + ago(a.now().Sub(since)) + ": " + why
		}
		lines = append(lines, why)
	}
	if bfd != nil && bfd.State != "up" && !strings.HasPrefix(reason, "BFD") {
		lines = append(lines, "BFD: "+a.bfdText(bfd))
	}
	return lines
}

// bfdState makes what is not up stand out.
func bfdState(state string) string {
	if state == "up" {
		return state
	}
	return strings.ToUpper(state)
}

// bfdText is a session's state, with what is to be known when it is not up.
func (a *app) bfdText(b *api.BFDStatus) string {
	if b.State == "up" {
		text := fmt.Sprintf("up, every %d ms", b.MinTx)
		if b.MinTx == 0 {
			text = "up"
		}
		if b.Flaps > 0 {
			text += ", went down " + count(b.Flaps, "time")
			if says(b.Diag) {
				text += ", last: " + b.Diag
			}
		}
		return text
	}
	text := strings.ToUpper(b.State)
	if !b.Since.IsZero() {
		text += " for " + ago(a.now().Sub(b.Since))
	}
	if says(b.Diag) {
		text += ": " + b.Diag
	}
	if b.RemoteState != "" {
		text += "; the other end says " + b.RemoteState
		if says(b.RemoteDiag) {
			text += ": " + b.RemoteDiag
		}
	}
	return text
}

// says tells a diagnostic from none (RFC 5880, 4.1: 0, No Diagnostic).
func says(diag string) bool { return diag != "" && !strings.EqualFold(diag, "no diagnostic") }

// tunnelText is what `show` has to say of a tunnel port.
func (a *app) tunnelText(s *api.TunnelStatus) string {
	text := "to " + s.Remote
	if s.RemoteAddr != "" && s.RemoteAddr != s.Remote {
		text += " (" + s.RemoteAddr + ")"
	}
	if s.Mesh != "" {
		text += " in mesh " + s.Mesh
	}
	if key := keyText(*s); key != "-" {
		text += ", key " + key
	}
	if s.PathMTU > 0 {
		text += fmt.Sprintf("; path MTU %d, largest inner packet %d", s.PathMTU, s.MTU)
	}
	if s.BFD != nil {
		text += "; BFD " + a.bfdText(s.BFD)
	}
	return text
}

func isTunnel(portType string) bool { return config.Object(portType).IsTunnel() }
