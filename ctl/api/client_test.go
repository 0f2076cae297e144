package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
	"vswitch/ctl/config"
)

func same[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func TestClientMirrorsService(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	ctx := context.Background()

	v, err := c.Version(ctx)
	same(t, "version", v, err, svc.V)
	st, err := c.Status(ctx, "br0")
	same(t, "status", st.ConfigVersion, err, 3)
	cv, err := c.Config(ctx, 2)
	same(t, "config", cv.Version, err, 3)
	h, err := c.History(ctx)
	same(t, "history", h, err, svc.H)
	f, err := c.FDB(ctx, api.FDBQuery{Bridge: "br0", VLAN: 20})
	same(t, "fdb", f, err, svc.F[1:])
	fs, err := c.FDBStats(ctx, "")
	same(t, "fdb stats", fs, err, svc.FS)
	fl, err := c.FDBFlush(ctx, api.FDBQuery{VLAN: -1, Port: "veth1"})
	same(t, "flush", fl.Flushed, err, 2)
	tn, err := c.Tunnels(ctx, "br0")
	same(t, "tunnels", tn, err, svc.T)
	ms, err := c.Meshes(ctx, "m1")
	same(t, "meshes", ms, err, svc.M)
	d, err := c.Drops(ctx, "br0", "veth1")
	same(t, "drops", d, err, svc.D)
	b, err := c.Stats(ctx, "", "")
	same(t, "stats", b, err, svc.B)
	w, err := c.Workers(ctx)
	same(t, "workers", w, err, svc.W)
	doc := config.Document{Bridges: []config.Bridge{{Name: "br0"}}}
	o := api.ApplyOptions{Confirm: time.Minute, Comment: "a & b", DryRun: true}
	edit := api.Edit{Ops: []config.Op{{Op: "add-bridge", Bridge: "br0", MayExist: true}}, Comment: "c"}
	for what, call := range map[string]func() (api.EditResult, error){
		"apply":    func() (api.EditResult, error) { return c.Apply(ctx, doc, o) },
		"edit":     func() (api.EditResult, error) { return c.Edit(ctx, edit) },
		"confirm":  func() (api.EditResult, error) { return c.Confirm(ctx) },
		"rollback": func() (api.EditResult, error) { return c.Rollback(ctx, 2) },
	} {
		svc.Asked()
		r, err := call()
		same(t, what, r, err, svc.R)
		asked := svc.Asked()
		if what == "apply" && !reflect.DeepEqual(asked, []any{apitest.Applied{Doc: doc, O: o}}) ||
			what == "edit" && !reflect.DeepEqual(asked, []any{edit}) {
			t.Errorf("%s: the service was asked %+v", what, asked)
		}
	}

	var unknown *api.Error
	if _, err := c.Meshes(ctx, "m2"); !errors.As(err, &unknown) || unknown.Status != 404 || unknown.Message != `no mesh "m2"` {
		t.Errorf("a mesh there is not: %v", err)
	}

	refusal := &api.Error{Status: 409, Message: "m", Field: "f", Value: "v", Allowed: "a"}
	svc.Fail(refusal)
	_, err = c.Confirm(ctx)
	var e *api.Error
	if !errors.As(err, &e) || *e != *refusal {
		t.Errorf("refusal arrived as %#v", err)
	}
}

func TestClientEvents(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	go func() { // ends when the subscription is gone, with the test's end at the latest
		for svc.Publish(api.Event{Kind: "port-up", Port: "veth1"}) == 0 {
			time.Sleep(time.Millisecond)
		}
	}()
	enough := errors.New("enough")
	var got api.Event
	err := c.Events(context.Background(), api.EventFilter{Kinds: []string{"port-up"}}, func(e api.Event) error {
		got = e
		return enough
	})
	if err != enough || got.Port != "veth1" {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Events(ctx, api.EventFilter{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	silent := filepath.Join(dir, "silent")
	mute, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	rude := filepath.Join(dir, "rude")
	hangup, err := net.Listen("unix", rude)
	if err != nil {
		t.Fatal(err)
	}
	defer hangup.Close()
	go func() { // ends when hangup closes
		for {
			c, err := hangup.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
			c.Close()
		}
	}()

	for _, tc := range []struct{ socket, want string }{
		{filepath.Join(dir, "none"), "systemctl start vswitchd"},
		{stale, "nobody answers"},
		{file, "nobody answers"},
		{file + "/below", "cannot be a socket"},
		{strings.Repeat("x", 200), "cannot be a socket"},
		{silent, "did not answer within 200ms"},
		{rude, "lost the daemon"},
	} {
		c := api.NewClient(tc.socket, 200*time.Millisecond)
		begun := time.Now()
		_, err := c.Status(context.Background(), "")
		var u *api.UnreachableError
		if !errors.Is(err, api.ErrUnreachable) || !errors.As(err, &u) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.socket, err, tc.want)
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("%s: took %s", tc.socket, d)
		}
		if strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: speaks of what nobody asked for: %v", tc.socket, err)
		}
	}
	if err := api.NewClient(silent, 200*time.Millisecond).Events(context.Background(), api.EventFilter{}, nil); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("events of a silent daemon: %v", err)
	}
}

func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root passes every mode: the sentence is made from the error alone.
		err := api.ExplainForTest("/s", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
		if !strings.Contains(err.Error(), "be root, or in group vswitch") {
			t.Errorf("got %v", err)
		}
		return
	}
	socket, _ := start(t, sample(), api.Limits{})
	os.Chmod(socket, 0)
	if _, err := api.NewClient(socket, time.Second).Version(context.Background()); err == nil || !strings.Contains(err.Error(), "be root, or in group vswitch") {
		t.Errorf("got %v", err)
	}
}
