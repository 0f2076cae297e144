package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// lockingDocker is a Docker that answers nothing before a call to its network driver has
// returned: dockerd holds locks over such calls that its answers need, too. Who asks it while
// he holds what a driver call needs never hears an answer.
type lockingDocker struct {
	driver *http.Client
	events chan string

	mu         sync.Mutex // held over a driver call, as dockerd's locks are
	containers map[string]int
	calls      int
	refused    []string
}

const orderNetwork = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// newLockingDocker answers at one socket, and calls its driver at another.
func newLockingDocker(t *testing.T, socket, plugin string) *lockingDocker {
	t.Helper()
	d := &lockingDocker{containers: map[string]int{}, events: make(chan string, 64), driver: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", plugin)
		},
	}}}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: d}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) }) // ends with Close
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return d
}

// call calls the driver, and waits for it as dockerd does when it cannot be reached.
func (d *lockingDocker) call(method, body string) {
	d.calls++
	var a struct{ Err string }
	err := lab.Wait(patient, func() error {
		r, err := d.driver.Post("http://plugin/NetworkDriver."+method, "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		return json.NewDecoder(r.Body).Decode(&a)
	})
	if err != nil || a.Err != "" {
		d.refused = append(d.refused, fmt.Sprint(method, ": ", a.Err, err))
	}
}

// locked is f between two driver calls.
func (d *lockingDocker) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := fmt.Sprintf("%064x", d.calls/2)
	method, body := "CreateEndpoint", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Interface":{}}`, orderNetwork, id)
	if d.calls%2 == 1 {
		method = "DeleteEndpoint"
	}
	d.call(method, body)
	f()
}

func (d *lockingDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pid, known := 0, false
	name, _ := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/json"), "/containers/")
	d.locked(func() { pid, known = d.containers[name] })
	switch {
	case r.URL.Path == "/events":
		w.(http.Flusher).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case line := <-d.events:
				fmt.Fprintln(w, line)
				w.(http.Flusher).Flush()
			}
		}
	case r.URL.Path == "/networks":
		fmt.Fprintf(w, `[{"Id":%q,"Name":"n"}]`, orderNetwork)
	case known:
		var b bytes.Buffer
		fmt.Fprintf(&b, `{"Id":"%064x","Name":%q,"State":{"Running":true,"Pid":%d},"HostConfig":{"NetworkMode":"none"}}`, len(name), "/"+name, pid)
		w.Write(b.Bytes())
	default:
		http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
	}
}

// set makes name a container whose first process is pid, 0: it is gone; and tells so.
func (d *lockingDocker) set(pid int, names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		action := "start"
		d.containers[name] = pid
		if pid == 0 {
			action = "destroy"
			delete(d.containers, name)
		}
		d.events <- fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":"x","Attributes":{"name":%q}}}`, action, name)
	}
}

// TestDockerOrder: whatever the switch asks Docker for, it holds nothing meanwhile that a call
// of Docker's needs. And containers that go together go in few changes.
func TestDockerOrder(t *testing.T) {
	t.Parallel() // with TestDockerHosts
	l := lab.New(t)
	h, one, two := l.Host("a"), l.Host("one"), l.Host("two")
	socket, plugin := filepath.Join(l.Dir(), "api"), filepath.Join(l.Dir(), "plugin")
	docker := newLockingDocker(t, socket, plugin)
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--docker", socket, "--docker-plugin", plugin, "--containerd", "/nowhere", "--podman", "/nowhere", "--plug-grace", "1s"}})
	g := &plugGround{t: t, l: l, h: h, d: d}
	d.Ctl("add-br", "br0", "ip=10.0.0.1/24")
	d.Ctl("add-br", "br1")
	docker.call("CreateNetwork", fmt.Sprintf(`{"NetworkID":%q,"Options":{},"IPv4Data":[{"Pool":"10.1.0.0/16","Gateway":"10.1.0.1/16"}]}`, orderNetwork))
	t.Run("ports move", func(t *testing.T) { dockerPortsMove(t, docker, d) })
	docker.calls = 0
	first, second := one.Start("sleep", "1000"), two.Start("sleep", "1000")
	docker.set(first.PID(), "web")

	began := time.Now()
	step := func(args ...string) {
		t.Helper()
		d.Ctl(args...)
		t.Logf("%v: after %v", args, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
	plugged := func(name, at string) {
		t.Helper()
		lab.Eventually(t, patient, func() error {
			if p := g.plug("docker:" + name); has(p.State, api.PlugPlugged) != nil || !slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.String() == at }) {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	}
	step("plug", "web", "br0", "--ip", "10.0.0.5/24")
	step("plug", "docker:web", "br0", "--ip", "10.0.0.6/24", "--may-exist")
	step("add-port", "br1", "extra", "type=plug", "container=docker:web", "ifname=eth7", "ip=10.7.0.1/24")
	step("publish", "br0", "8080:web:80")
	step("plugged")
	step("show")
	step("unplug", "web", "br1")
	plugged("web", "10.0.0.6/24")
	docker.set(second.PID(), "web") // it was restarted
	lab.Eventually(t, patient, func() error { return two.Ping("10.0.0.1") })
	d.Restart()
	plugged("web", "10.0.0.6/24")
	step("set-port", g.plug("docker:web").Port, "ip=10.0.0.7/24")
	plugged("web", "10.0.0.7/24")
	step("unplug", "--all", "web")

	var many []string
	for n := range 8 {
		many = append(many, fmt.Sprintf("c%d", n))
	}
	docker.set(first.PID(), many...)
	for n, name := range many {
		d.Ctl("plug", name, "br1", "--ifname", fmt.Sprintf("eth%d", n+1))
	}
	version := func() uint64 {
		var h []api.HistoryEntry
		d.CtlJSON(&h, "history")
		return slices.MaxFunc(h, func(a, b api.HistoryEntry) int { return int(a.Version) - int(b.Version) }).Version
	}
	before := version()
	docker.set(0, many...)
	docker.set(first.PID(), "c7") // which is made anew at once
	lab.Eventually(t, patient, func() error {
		left := slices.DeleteFunc(g.plugged(), func(p api.PlugStatus) bool { return p.Owner != "" })
		if len(left) != 1 || left[0].Container != "docker:c7" || has(left[0].State, api.PlugPlugged) != nil {
			return fmt.Errorf("left: %+v", left)
		}
		return nil
	})
	if n := version() - before; n > 4 { // a few, as they were found to be gone
		t.Errorf("%d containers went in %d changes", len(many)-1, n)
	}

	docker.mu.Lock()
	defer docker.mu.Unlock()
	if len(docker.refused) > 0 {
		t.Errorf("driver calls: %q", docker.refused)
	}
	t.Logf("%d driver calls", docker.calls)
}

// dockerPortsMove: Docker takes the ports of one endpoint away and gives them to another at once,
// as it does when a container's default route moves, while the gateways have other things to do.
func dockerPortsMove(t *testing.T, docker *lockingDocker, d *lab.Daemon) {
	docker.mu.Lock()
	defer docker.mu.Unlock()
	endpoint := func(n int) string {
		id := fmt.Sprintf("e%d", n)
		docker.call("CreateEndpoint", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Interface":{"Address":"10.1.1.%d/16"}}`, orderNetwork, id, n+1))
		return id
	}
	ports := func(method, id string, host int) {
		docker.call(method+"ExternalConnectivity", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Options":{"com.docker.network.portmap":[
			{"Proto":6,"Port":80,"HostPort":%d},{"Proto":17,"Port":80,"HostPort":%[3]d}]}}`, orderNetwork, id, host))
	}
	const others = 10
	for n := range others {
		ports("Program", endpoint(n), 0)
	}
	two := [2]string{endpoint(others), endpoint(others + 1)}
	stop, busy := make(chan struct{}), sync.WaitGroup{}
	busy.Go(func() { // ends with stop
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				d.CtlErr("set-br", "br0", "nat="+[2]string{"masquerade", "none"}[n%2])
			}
		}
	})
	defer busy.Wait()
	defer close(stop)
	for n := range 12 {
		ports("Program", two[n%2], 8088)
		ports("Revoke", two[n%2], 8088)
	}
	for n := range others + 2 {
		docker.call("DeleteEndpoint", fmt.Sprintf(`{"EndpointID":"e%d"}`, n))
	}
	if len(docker.refused) > 0 {
		t.Errorf("refused %d times: %.500q", len(docker.refused), docker.refused)
	}
	docker.refused = nil
}
