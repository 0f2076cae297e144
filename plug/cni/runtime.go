package cni

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"vswitch/ctl/config"
)

// What a runtime says of one container comes by three ways (CONVENTIONS.md of the
// specification): runtimeConfig, for capabilities that the configuration declares; args,
// which may be ignored; and the older environment variable CNI_ARGS. The first that says a
// thing is heard.

// elsewhere are capabilities that are other plug-ins': the runtime that gives one to this
// counts on it being done.
var elsewhere = map[string]string{
	"bandwidth":      "chain the plug-in bandwidth",
	"ipRanges":       "the subnet is the bridge's, or that of another ipam.type",
	"infinibandGUID": "the interface is a veth pair's end",
	"deviceID":       "the interface is a veth pair's end",
}

func (w *wish) readRuntime(key string, raw json.RawMessage) error {
	var said map[string]json.RawMessage
	if json.Unmarshal(raw, &said) != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not an object", key, quoted(raw))
	}
	readers := map[string]func(string, json.RawMessage) error{
		"mac": w.readMAC, "ips": w.readIPs, "portMappings": w.readPorts, "aliases": w.readAliases, "dns": w.readRuntimeDNS,
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		path := key + "." + name
		if reader := readers[name]; reader != nil && string(said[name]) != "null" {
			if err := reader(path, said[name]); err != nil {
				return err
			}
		}
		if instead := elsewhere[name]; instead != "" && !(name == "ipRanges" && w.delegated()) {
			return fail(types.ErrUnsupportedField, "%s: %s is not for this plug-in: %s", path, quoted(said[name]), instead)
		}
	}
	return nil
}

// readMAC takes the runtime's MAC address for the configuration's.
func (w *wish) readMAC(path string, raw json.RawMessage) error {
	delete(w.from, "mac")
	return option("mac")(w, path, raw)
}

func (w *wish) readIPs(path string, raw json.RawMessage) error {
	if json.Unmarshal(raw, &w.ips) != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a list of addresses", path, quoted(raw))
	}
	for _, ip := range w.ips {
		if _, _, ok := parseIP(ip); !ok {
			return fail(types.ErrInvalidNetworkConfig, "%s: %q is not an address, with a prefix length or without", path, ip)
		}
	}
	return nil
}

// parseIP reads an address with a prefix length or without: bits is -1 then.
func parseIP(s string) (a netip.Addr, bits int, ok bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), p.Bits(), true
	}
	a, err := netip.ParseAddr(s)
	return a, -1, err == nil && a.Zone() == ""
}

// mapping is an entry of portMappings.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// readPorts publishes ports of the host. A mapping without a port of the host is none: it
// only tells what the container listens at.
func (w *wish) readPorts(path string, raw json.RawMessage) error {
	var list []mapping
	if err := json.Unmarshal(raw, &list); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a list of port mappings", path, quoted(raw))
	}
	var published []string
	for _, m := range list {
		if m.HostPort == 0 {
			continue
		}
		text := fmt.Sprintf("%d:%d", m.HostPort, m.ContainerPort)
		switch host, err := netip.ParseAddr(m.HostIP); {
		case m.HostIP == "":
		case err != nil:
			return fail(types.ErrInvalidNetworkConfig, "%s: hostIP %q is not an address", path, m.HostIP)
		default:
			text = netip.AddrPortFrom(host.Unmap(), 1).String()
			text = fmt.Sprintf("%s%d:%d", strings.TrimSuffix(text, "1"), m.HostPort, m.ContainerPort)
		}
		if m.Protocol != "" {
			text += "/" + strings.ToLower(m.Protocol)
		}
		published = append(published, text)
	}
	if len(published) == 0 {
		return nil
	}
	return w.set(path, "publish", strings.Join(published, ","))
}

// readAliases takes a list, as CONVENTIONS.md has it, or lists by the network's name, as
// Podman sends them.
func (w *wish) readAliases(path string, raw json.RawMessage) error {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		var byNetwork map[string][]string
		if json.Unmarshal(raw, &byNetwork) != nil {
			return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a list of names", path, quoted(raw))
		}
		list = byNetwork[w.name]
	}
	if len(list) == 0 {
		return nil
	}
	return w.set(path, "alias", strings.Join(list, ","))
}

// readRuntimeDNS takes the runtime's resolvers for the configuration's.
func (w *wish) readRuntimeDNS(path string, raw json.RawMessage) error {
	var said struct {
		Servers  []string `json:"servers"`
		Searches []string `json:"searches"`
		Options  []string `json:"options"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a DNS configuration: %v", path, quoted(raw), err)
	}
	for _, x := range []struct {
		from []string
		to   *[]string
	}{{said.Servers, &w.dns.Nameservers}, {said.Searches, &w.dns.Search}, {said.Options, &w.dns.Options}} {
		if len(x.from) > 0 {
			*x.to = x.from
		}
	}
	return nil
}

// readArgs hears args and CNI_ARGS. What is not known there is for somebody else.
func (w *wish) readArgs(environment string) error {
	var args struct {
		CNI struct {
			IPs json.RawMessage `json:"ips"`
			MAC json.RawMessage `json:"mac"`
		} `json:"cni"`
	}
	if raw, ok := w.keys["args"]; ok && json.Unmarshal(raw, &args) == nil {
		if args.CNI.IPs != nil && w.ips == nil {
			if err := w.readIPs("args.cni.ips", args.CNI.IPs); err != nil {
				return err
			}
		}
		if args.CNI.MAC != nil && !w.heard("mac", "runtimeConfig.mac") {
			if err := w.readMAC("args.cni.mac", args.CNI.MAC); err != nil {
				return err
			}
		}
	}
	for pair := range strings.SplitSeq(environment, ";") {
		name, value, _ := strings.Cut(pair, "=")
		switch {
		case value == "":
		case name == "IP" && w.ips == nil:
			for _, word := range strings.Split(value, ",") {
				if _, _, ok := parseIP(word); !ok {
					return fail(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: IP=%s: %q is not an address, with a prefix length or without", value, word)
				}
				w.ips = append(w.ips, word)
			}
		case name == "MAC" && !w.heard("mac", "runtimeConfig.mac", "args.cni.mac"):
			delete(w.from, "mac")
			if err := w.set("CNI_ARGS: MAC", "mac", value); err != nil {
				return fail(types.ErrInvalidEnvironmentVariables, "%v", err)
			}
		case name == "K8S_POD_NAME":
			w.callPod(value)
		}
	}
	return nil
}

// heard says whether one of these has said what the option shall be.
func (w *wish) heard(name string, by ...string) bool { return slices.Contains(by, w.from[name]) }

// callPod lets the bridge's DNS answer the pod's name, which Podman sends for each
// container. A name that is no label of a host name, or that has no room among the
// aliases, is not answered.
func (w *wish) callPod(name string) {
	row, err := config.Lookup(config.PlugPort, "alias")
	if err != nil {
		return
	}
	if all, err := row.Canonical(w.options["alias"] + "," + name); err == nil {
		w.options["alias"] = all
	}
}
