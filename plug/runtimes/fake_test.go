package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// socketDir is a directory with a short path.
func socketDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fake listens on a socket as a runtime would, and answers each connection as serve does.
// It ends with the test.
func fake(t *testing.T, path string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			serving.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
}

// says answers with bytes, whatever is asked, and hangs up.
func says(text string) func(net.Conn) {
	return func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, text)
		conn.Close()
	}
}

func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// Runtimes that do not answer, or not so that it can be read: no bare name becomes
// somebody else's for that, and no container unknown.
func TestSilence(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		want  string
	}{
		{"accepts and never answers", func(c net.Conn) { io.Copy(io.Discard, c) }, "within 300ms"},
		{"hangs up", func(c net.Conn) { c.Close() }, "docker on"},
		{"garbage", says("\x00\xff\x01 what?\n\n"), "malformed"},
		{"headers without end", func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-Y: "+strings.Repeat("z", 4000)+"\r\n"); err != nil {
					return
				}
			}
		}, "header"},
		{"body without end", func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := io.WriteString(c, strings.Repeat("[", 65536)); err != nil {
					return
				}
			}
		}, "docker on"}, // too much, or too slow
		{"body that stops", func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
			io.Copy(io.Discard, c)
		}, "within 300ms"},
		{"no JSON", says(answer("<html>")), "cannot be read"},
		{"deep JSON", says(answer(strings.Repeat(`{"State":`, 100000))), "cannot be read"},
		{"another shape", says(answer(`{"Id":7}`)), "cannot be read"},
		{"null", says(answer("null")), "cannot be read"},
		{"no name", says(answer(`{"Id":"abcdef123456"}`)), "cannot be read"},
		{"name of a path", says(answer(`{"Id":"abcdef123456","Name":"/../../etc"}`)), "cannot be read"},
		{"no ID", says(answer(`{"Id":"x/y","Name":"/web"}`)), "cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := socketDir(t)
			fake(t, dir+"/d", test.serve)
			// The name is a namespace's, too, as far as a plain file can be.
			if err := os.WriteFile(filepath.Join(dir, "web"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir, Timeout: timeout})
			for _, ask := range []func() error{
				func() error { _, err := rt.Find(t.Context(), "web"); return err },
				func() error { _, err := rt.Find(t.Context(), "docker:web"); return err },
				func() error {
					_, err := rt.Look(t.Context(), config.ContainerRef{Kind: "docker", Name: "web"})
					return err
				},
			} {
				began := time.Now()
				err := ask()
				if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "docker") || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v; want %q", err, test.want)
				}
				if took := time.Since(began); took > 10*timeout {
					t.Errorf("took %v", took)
				}
			}
		})
	}
}

// Statuses, and what is said with them.
func TestStatus(t *testing.T) {
	for _, test := range []struct {
		name, answer, want string
		is                 error
	}{
		{"404", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "docker:web", ErrUnknown},
		{"500", "HTTP/1.1 500 No\r\n\r\n" + `{"message":"Multiple IDs found with provided prefix: ab"}`, "Multiple IDs found", nil},
		{"500 and rubbish", "HTTP/1.1 500 No\r\n\r\n\x1b[31m" + strings.Repeat("x", 1000), "…", nil},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "302", nil},
	} {
		dir := socketDir(t)
		fake(t, dir+"/d", says(test.answer))
		rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir})
		_, err := rt.Find(t.Context(), "docker:web")
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 400 {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, is := range []error{ErrUnknown, ErrNoAnswer} {
			if errors.Is(err, is) != (is == test.is) {
				t.Errorf("%s: %v is %v", test.name, err, is)
			}
		}
	}
}

// A socket that nobody listens on any more is Docker's nevertheless.
func TestStopped(t *testing.T) {
	dir := socketDir(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/d", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir})
	_, err = rt.Find(t.Context(), "web")
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "docker is stopped") || !strings.Contains(err.Error(), "netns:web") {
		t.Errorf("%v", err)
	}
	_, err = rt.Find(t.Context(), "podman:web")
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), dir+"/none") {
		t.Errorf("absent: %v", err)
	}
}

// Many ask one that hangs: none waits longer than the timeout for it.
func TestManyAsk(t *testing.T) {
	dir := socketDir(t)
	fake(t, dir+"/d", func(c net.Conn) { io.Copy(io.Discard, c) })
	rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir, Timeout: 200 * time.Millisecond})
	began := time.Now()
	var asking sync.WaitGroup
	for range 10 * maxAsking {
		asking.Go(func() {
			if _, err := rt.Find(t.Context(), "web"); !errors.Is(err, ErrNoAnswer) {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

// A stream of events that breaks, comes back, and holds what no event is.
func TestStream(t *testing.T) {
	dir := socketDir(t)
	event := func(action, name string) string {
		text, _ := json.Marshal(map[string]any{"Type": "container", "Action": action,
			"Actor": map[string]any{"ID": "abcdef123456abcdef", "Attributes": map[string]string{"name": name}}})
		return string(text) + "\n"
	}
	var mu sync.Mutex
	asked := 0
	listening := make(chan struct{}) // an item each time the test has heard that all may have changed
	fake(t, dir+"/d", func(c net.Conn) {
		n, _ := c.Read(make([]byte, 4096))
		if n == 0 {
			return
		}
		mu.Lock()
		asked++
		turn := asked
		mu.Unlock()
		switch turn {
		case 1:
			io.WriteString(c, "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		case 2:
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nnot json\n{}\n"+event("exec_start", "no"))
			<-listening
			io.WriteString(c, event("start", "one"))
			<-listening
			c.Close()
		case 3: // a line without end
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := io.WriteString(c, strings.Repeat("x", 65536)); err != nil {
					return
				}
			}
		default:
			<-listening
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			<-listening
			io.WriteString(c, event("start", "two"))
			<-listening
			io.WriteString(c, event("die", "../x")) // somebody
			io.Copy(io.Discard, c)
		}
	})
	rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir})
	ref := func(name string) config.ContainerRef { return config.ContainerRef{Kind: "docker", Name: name} }
	w := rt.watching(t, ref("one"), ref("abcdef123456"), ref("abcdef"))
	w.told(t, config.ContainerRef{}, 5*time.Second)
	listening <- struct{}{}
	w.told(t, ref("one"), 5*time.Second)
	w.told(t, ref("abcdef123456"), 5*time.Second)
	listening <- struct{}{}
	lab.Eventually(t, 5*time.Second, func() error { // the third answers, too, before it misbehaves
		mu.Lock()
		defer mu.Unlock()
		if asked < 4 {
			return fmt.Errorf("asked %d times", asked)
		}
		return nil
	})
	w.forget()
	listening <- struct{}{}
	w.told(t, config.ContainerRef{}, 5*time.Second)
	listening <- struct{}{}
	w.told(t, ref("two"), 5*time.Second)
	w.forget()
	listening <- struct{}{}
	w.told(t, config.ContainerRef{}, 5*time.Second)
	w.mu.Lock()
	for _, got := range w.refs {
		if got == ref("no") || got == ref("abcdef") {
			t.Errorf("%s was told", got)
		}
	}
	w.mu.Unlock()
}

// Nobody connects to an engine of which nothing is wanted, and a stream ends when nothing
// is wanted of it any more.
func TestUnwanted(t *testing.T) {
	dir := socketDir(t)
	connected := make(chan struct{}, 16)
	ended := make(chan struct{}, 16)
	serve := func(c net.Conn) {
		connected <- struct{}{}
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		io.Copy(io.Discard, c)
		ended <- struct{}{}
	}
	fake(t, dir+"/d", serve)
	fake(t, dir+"/p", func(net.Conn) { t.Error("somebody connects to podman") })
	rt := New(Options{Docker: dir + "/d", Podman: dir + "/p", Containerd: dir, NetNS: dir})
	w := rt.watching(t, config.ContainerRef{Kind: config.NetNSContainer, Name: "x"})
	w.told(t, config.ContainerRef{Kind: config.NetNSContainer, Name: "x"}, time.Second)
	select {
	case <-connected:
		t.Error("somebody connects to docker")
	default:
	}
	w.want(config.ContainerRef{Kind: config.DockerContainer, Name: "web"})
	w.told(t, config.ContainerRef{}, 2*time.Second)
	w.want()
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
		t.Error("the stream stays")
	}
}

// Watch leaves nothing behind, whatever it is doing.
func TestWatchEnds(t *testing.T) {
	dir := socketDir(t)
	fake(t, dir+"/d", func(c net.Conn) { io.Copy(io.Discard, c) }) // never answers
	rt := New(Options{Docker: dir + "/d", Podman: dir + "/none", Containerd: dir, NetNS: dir})
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	rt.Watch(ctx, func() []config.ContainerRef {
		return []config.ContainerRef{{Kind: "docker", Name: "a"}, {Kind: "podman", Name: "b"}}
	}, func(config.ContainerRef) {})
	lab.Eventually(t, 2*time.Second, func() error {
		if now := runtime.NumGoroutine(); now > before+2 { // the fake's own
			return fmt.Errorf("%d goroutines, %d before", now, before)
		}
		return nil
	})
}

func TestNews(t *testing.T) {
	n := newNews()
	ref := func(i int) change {
		return change{ref: config.ContainerRef{Kind: "docker", Name: fmt.Sprint(i)}}
	}
	for range 3 {
		n.add(ref(1))
	}
	if got := n.take(); len(got) != 1 || got[0] != ref(1) {
		t.Errorf("one: %v", got)
	}
	for i := range maxPending + 10 {
		n.add(ref(i))
	}
	if got := n.take(); len(got) != 1 || got[0] != (change{}) {
		t.Errorf("too many: %d", len(got))
	}
	n.add(ref(1))
	n.add(change{})
	n.add(ref(2))
	if got := n.take(); len(got) != 1 || got[0] != (change{}) {
		t.Errorf("all: %v", got)
	}
}

func TestSlips(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"web", "web", 0}, {"web", "wbe", 2}, {"web", "we", 1}, {"web", "xweb", 1}, {"web", "wab", 1}, {"", "ab", 2}, {"abc", "xyz", 3}, {"web", "webserver", 3}} {
		if got := slips(test.a, test.b, 3); got != test.want || slips(test.b, test.a, 3) != got {
			t.Errorf("%s, %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"Id":"abcdef","Name":"/web","State":{"Running":true,"Pid":7},"HostConfig":{"NetworkMode":"container:abc"},"NetworkSettings":{"Networks":{"a":{"Aliases":["x","y"]},"b":null}}}`))
	f.Add([]byte(`{"Id":"a","Name":"b","HostConfig":{"NetworkMode":"host"}}`))
	e := newEngine(config.DockerContainer, "/nowhere", time.Second)
	f.Fuzz(func(t *testing.T, body []byte) {
		c, owner, err := e.read(body)
		if err != nil {
			return
		}
		if !validName(c.Ref.Name) || owner != "" && !validName(owner) || len(c.Names) == 0 || len(c.Names) > maxNames || c.PID < 0 || c.Running && c.PID == 0 {
			t.Errorf("%q: %+v, %q", body, c, owner)
		}
		for _, name := range c.Names {
			if !validName(name) {
				t.Errorf("name %q", name)
			}
		}
	})
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"Type":"container","Action":"rename","Actor":{"ID":"abc","Attributes":{"name":"new","oldName":"/old"}}}`))
	f.Add([]byte(`{"status":"start","id":"0d","Type":"container","Action":"start","Actor":{"ID":"0d","Attributes":{"name":"c1"}}}`))
	e := newEngine(config.DockerContainer, "/nowhere", time.Second)
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, c := range e.event(line) {
			if c != (change{}) && (c.ref.Kind != e.kind || !validName(c.ref.Name)) {
				t.Errorf("%q: %+v", line, c)
			}
		}
	})
}
