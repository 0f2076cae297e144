package api_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// slow is a Service that takes its time to look at everything.
type slow struct {
	*apitest.Service
	takes time.Duration
}

func (s slow) Doctor(ctx context.Context, q api.DoctorQuery) (api.Doctor, error) {
	select {
	case <-ctx.Done():
	case <-time.After(s.takes):
	}
	return s.Service.Doctor(ctx, q)
}

// TestPathAndDoctor: what is asked arrives, what makes no sense is refused by name, and
// a client waits longer for a doctor than for others.
func TestPathAndDoctor(t *testing.T) {
	svc := &apitest.Service{}
	svc.P.Path = api.Path{MAC: "02:00:00:00:00:02", Reached: true, Hops: []api.PathHop{{Host: "a", Outputs: []api.PathOutput{{Port: "p"}}}}}
	svc.P.Doctor = api.Doctor{OK: 1, Findings: []api.Finding{{Group: "host", Check: "clock", Status: api.StatusOK, What: "fine"}}}
	socket := filepath.Join(t.TempDir(), "ctl.sock")
	stop, err := apitest.Serve(slow{svc, 300 * time.Millisecond}, socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c := api.NewClient(socket, 100*time.Millisecond)
	defer c.Close()
	vlan := 10
	p, err := c.Path(context.Background(), api.PathQuery{Target: "02-00-00-00-00-02", FromPort: "veth1", Bridge: "br0", VLAN: &vlan})
	if err != nil || !reflect.DeepEqual(p, svc.P.Path) {
		t.Errorf("%+v, %v", p, err)
	}
	d, err := c.Doctor(context.Background(), api.DoctorQuery{Bridge: "br0", Peer: "h"})
	if err != nil || !reflect.DeepEqual(d, svc.P.Doctor) {
		t.Errorf("%+v, %v", d, err)
	}
	want := []any{api.PathQuery{Target: "02:00:00:00:00:02", FromPort: "veth1", Bridge: "br0", VLAN: &vlan}, api.DoctorQuery{Bridge: "br0", Peer: "h"}}
	if asked := svc.Asked(); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %+v, want %+v", asked, want)
	}

	plain := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	defer plain.CloseIdleConnections()
	for _, tc := range []struct{ path, body, want string }{
		{"path", ``, "body is empty"},
		{"path", `{"target":"10.0.0.2","from_port":"p","hops":1}`, `"field":"hops"`},
		{"path", `{"from_port":"p"}`, "such as 10.0.0.5"},
		{"path", `{"target":"10.0.0","from_port":"p"}`, `"field":"target"`},
		{"path", `{"target":"10.0.0.2"}`, `"field":"from_port"`},
		{"path", `{"target":"10.0.0.2","from_port":"p","vlan":4095}`, "0 (untagged) to 4094"},
		{"path", `{"target":"10.0.0.2","from_port":"p","vlan":-1}`, `"field":"vlan"`},
		{"doctor", `[]`, "does not fit here"},
		{"doctor", `{"peer":"` + strings.Repeat("a", 300) + `"}`, `"field":"peer"`},
	} {
		resp, err := plain.Post("http://vswitch/v1/"+tc.path, "application/json", bytes.NewReader([]byte(tc.body)))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), tc.want) {
			t.Errorf("%s %s: %d %s, want %q", tc.path, tc.body, resp.StatusCode, text, tc.want)
		}
	}
	if asked := svc.Asked(); len(asked) > 0 {
		t.Errorf("what makes no sense was asked: %+v", asked)
	}
}

// TestDoctorEndsWithTheDaemon: who asks when the daemon is told to end is not kept
// waiting until it cuts him off, and hears why there is no answer.
func TestDoctorEndsWithTheDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "ctl.sock")
	begun := make(chan struct{}, 2)
	ln, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(endless{&apitest.Service{}, begun}, slog.New(slog.DiscardHandler), api.Limits{})
	go srv.Serve(ln) // ends with Shutdown
	c := api.NewClient(socket, time.Minute)
	defer c.Close()
	errs := make(chan error, 2)
	go func() {
		_, err := c.Doctor(context.Background(), api.DoctorQuery{})
		errs <- err
	}()
	go func() {
		_, err := c.Path(context.Background(), api.PathQuery{Target: "10.0.0.2", FromPort: "p"})
		errs <- err
	}()
	<-begun
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "vswitchd ends") {
			t.Errorf("%v, want that the daemon ends", err)
		}
	}
}

// endless is a Service that looks at everything until it is told to end.
type endless struct {
	*apitest.Service
	begun chan<- struct{}
}

func (s endless) Doctor(ctx context.Context, _ api.DoctorQuery) (api.Doctor, error) {
	s.begun <- struct{}{}
	<-ctx.Done()
	return api.Doctor{}, nil
}

func (s endless) Path(ctx context.Context, _ api.PathQuery) (api.Path, error) {
	s.begun <- struct{}{}
	<-ctx.Done()
	return api.Path{}, nil
}
