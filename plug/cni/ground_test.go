package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"vswitch/internal/lab"
)

// stock is where Debian has the plug-ins of containernetworking-plugins.
const stock = "/usr/lib/cni"

var (
	programs = filepath.Join(os.TempDir(), fmt.Sprintf("vsw-%d-cni", os.Getpid())) // the lab sweeps up what is left of such
	building sync.Mutex
)

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(programs)
	os.Exit(code)
}

// program builds a program once, and returns its path.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path := filepath.Join(programs, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

func plugin(t *testing.T) string { return program(t, "vswitch-cni", "vswitch/cmd/vswitch-cni") }

// needStock is for tests that run with other plug-ins.
func needStock(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(stock, name)); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v: install containernetworking-plugins", err)
			}
			t.Skipf("%v: install containernetworking-plugins", err)
		}
	}
}

// sandbox is a container's namespace with nothing in it, which needs no switch.
func sandbox(l *lab.Lab, name string) (h *lab.Host, path string) {
	h = l.Host(name)
	return h, "/run/netns/" + h.Name
}

// run is one run of the plug-in, as a runtime does it.
type run struct {
	command, id, netns, ifname, args string
	conf                             string
}

type answer struct {
	code   int // exit status
	stdout []byte
	stderr string
}

func (r run) do(t *testing.T) answer {
	t.Helper()
	cmd := exec.Command(plugin(t))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_PATH=" + stock}
	for name, value := range map[string]string{"COMMAND": r.command, "CONTAINERID": r.id, "NETNS": r.netns, "IFNAME": r.ifname, "ARGS": r.args} {
		if value != "" {
			cmd.Env = append(cmd.Env, "CNI_"+name+"="+value)
		}
	}
	cmd.Stdin = strings.NewReader(r.conf)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	return answer{cmd.ProcessState.ExitCode(), stdout.Bytes(), stderr.String()}
}

// ok is for what must succeed.
func (r run) ok(t *testing.T) []byte {
	t.Helper()
	a := r.do(t)
	if a.code != 0 {
		t.Fatalf("%s: status %d\n%s%s", r.command, a.code, a.stdout, a.stderr)
	}
	return a.stdout
}

// result is that of a successful ADD.
func (r run) result(t *testing.T, spoken string) *types100.Result {
	t.Helper()
	out := r.ok(t)
	var v struct {
		Version string `json:"cniVersion"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Version != spoken {
		t.Fatalf("the result is of version %q (%v), want %s:\n%s", v.Version, err, spoken, out)
	}
	res, err := parseResult(out, spoken)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return res
}

// fails is for what must be refused with a code, a text, and nothing but that on stdout.
func (r run) fails(t *testing.T, code uint, text string) {
	t.Helper()
	a := r.do(t)
	var e struct {
		Version string `json:"cniVersion"`
		types.Error
	}
	err := json.Unmarshal(a.stdout, &e)
	if a.code != 1 || err != nil || e.Code != code || !strings.Contains(e.Msg+" "+e.Details, text) || e.Version == "" {
		t.Errorf("%s %s: status %d, %s%s; want code %d and %q", r.command, r.conf, a.code, a.stdout, a.stderr, code, text)
	}
}

func (r run) as(command string) run {
	r.command = command
	return r
}
