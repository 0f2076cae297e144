package docker

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// FuzzCalls makes two calls with any bodies. Whatever they ask, the driver answers JSON, its
// items make a document that has a place for them, and no call is for ever in the others' way.
func FuzzCalls(f *testing.F) {
	paths := slices.Sorted(maps.Keys(methods))
	at := func(call string) uint8 { return uint8(slices.Index(paths, "/"+call)) }
	f.Add(at("NetworkDriver.CreateNetwork"), network1, at("NetworkDriver.CreateEndpoint"), endpointOn(net1, ep1, "10.1.0.2/16"))
	f.Add(at("NetworkDriver.CreateEndpoint"), endpointOn(net2, ep1, "10.0.0.2/24"), at("NetworkDriver.Join"), `{"EndpointID":"`+ep1+`"}`)
	f.Add(at("NetworkDriver.CreateEndpoint"), endpointOn(net2, ep1, "fe80::1%x/24"), at("NetworkDriver.ProgramExternalConnectivity"), published(ep1, `[{"Proto":6,"Port":1}]`))
	f.Add(at("IpamDriver.RequestPool"), `{"Pool":"10.1.0.0/30"}`, at("IpamDriver.RequestAddress"), `{"PoolID":"docker/10.1.0.0/30","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
	f.Add(at("IpamDriver.RequestPool"), `{"Pool":"fd00::/127","SubPool":"fd00::/128"}`, at("IpamDriver.RequestAddress"), `{"PoolID":"docker/fd00::/127"}`)
	f.Add(at("IpamDriver.RequestPool"), `{"Pool":"10.0.0.0/24","Options":{"bridge":"br0"}}`, at("IpamDriver.RequestAddress"), `{"PoolID":"bridge/br0/4","Address":"10.0.0.255"}`)
	f.Add(at("NetworkDriver.CreateNetwork"), `{"NetworkID":"x","Options":{"com.docker.network.generic":{"mtu":"1e9"}}}`, at("Plugin.Activate"), `[`)
	f.Fuzz(func(t *testing.T, p1 uint8, b1 string, p2 uint8, b2 string) {
		d, s, _ := newDouble(t, operators)
		d.o.Log = slog.New(slog.NewTextHandler(panics{t}, &slog.HandlerOptions{Level: slog.LevelError}))
		must(t, d, "NetworkDriver.CreateNetwork", create(t, net2, "10.0.0.0/24", false, map[string]string{"bridge": "br0"}))
		for _, c := range []struct {
			path uint8
			body string
		}{{p1, b1}, {p2, b2}, {p1, b1}} {
			w := httptest.NewRecorder()
			path := paths[int(c.path)%len(paths)]
			d.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(c.body)))
			if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "{") {
				t.Fatalf("%s %q: %d %s", path, c.body, w.Code, w.Body)
			}
		}
		doc := s.expanded()
		for i := range doc.Bridges { // whom runtimes plug by themselves is nothing for a document
			doc.Bridges[i].Ports = slices.Clone(doc.Bridges[i].Ports)
			for j, p := range doc.Bridges[i].Ports {
				if g, ok := p.Plug(); ok && g.Container.Kind == "runtime" {
					p.Options = maps.Clone(p.Options)
					p.Options["container"] = "docker:" + g.Container.Name
					doc.Bridges[i].Ports[j] = p
				}
			}
		}
		if err := doc.Validate(); err != nil {
			t.Fatalf("%v\n%q\n%q", err, b1, b2)
		}
		d.turn <- struct{}{}
	})
}

// panics is where the log goes of a driver that must not panic.
type panics struct{ t *testing.T }

func (p panics) Write(line []byte) (int, error) {
	p.t.Helper()
	p.t.Fatalf("%s", line)
	return len(line), nil
}
