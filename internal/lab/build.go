package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// program is one of this project's, built once a test process. The file has
// no name any more when it runs (it is started through the descriptor), so that
// nothing of it can stay behind.
type program struct {
	once sync.Once
	file *os.File
	err  error
}

var (
	vswitchd   program
	vswitchctl program
)

// path builds the program when that was not done yet, and returns what to
// execute.
func (b *program) path(name string) (string, error) {
	b.once.Do(func() { b.file, b.err = build(name) })
	if b.err != nil {
		return "", b.err
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd()), nil
}

// build compiles cmd/<name>, static; with the race detector where the test has
// it, unless the environment says VSWITCH_RACE=off.
func build(name string) (*os.File, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-build", prefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, name)
	args := []string{"build", "-buildvcs=false", "-o", path}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if raceEnabled && os.Getenv("VSWITCH_RACE") != "off" {
		args = append(args, "-race")
		env = append(os.Environ(), "CGO_ENABLED=1") // the race detector wants it
	}
	cmd := exec.Command("go", append(args, "vswitch/cmd/"+name)...)
	cmd.Env = env
	out := &Tail{Limit: 1 << 16}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 2 * time.Second
	if err := startIn(-1, cmd); err != nil {
		return nil, fmt.Errorf("build %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", name, err, strings.TrimSpace(out.String()))
	}
	return os.Open(path)
}
