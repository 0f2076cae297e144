package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// execLimit bounds Exec and MustExec.
const execLimit = 60 * time.Second

// Proc is a running process of a lab. Thread-safety: safe for concurrent use.
type Proc struct {
	// Out collects standard output and standard error, the last of them when
	// there is much.
	Out *Tail

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been waited for
	err  error         // of Wait; readable after done
}

// Exec runs a command inside the namespace and returns its standard output and
// standard error together. It is killed after a minute, or with its lab.
func (n *Namespace) Exec(command ...string) (string, error) {
	return n.ExecTimeout(execLimit, command...)
}

// ExecTimeout is Exec with a time limit of its own.
func (n *Namespace) ExecTimeout(limit time.Duration, command ...string) (string, error) {
	p, err := n.start(command, nil)
	if err != nil {
		return "", err
	}
	return p.finish(limit)
}

// MustExec is Exec that fails the test.
func (n *Namespace) MustExec(command ...string) string {
	n.lab.t.Helper()
	out, err := n.Exec(command...)
	if err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	return out
}

// Start starts a command inside the namespace. It is killed with the lab.
func (n *Namespace) Start(command ...string) *Proc {
	n.lab.t.Helper()
	p, err := n.start(command, nil)
	if err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	return p
}

// StartWith is Start of a command that reads stdin, an *os.File or another reader.
func (n *Namespace) StartWith(stdin io.Reader, command ...string) *Proc {
	n.lab.t.Helper()
	p, err := n.start(command, func(cmd *exec.Cmd) { cmd.Stdin = stdin })
	if err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	return p
}

// start starts a command, which change may alter first.
func (n *Namespace) start(command []string, change func(*exec.Cmd)) (*Proc, error) {
	if len(command) == 0 {
		return nil, errors.New("start: no command given")
	}
	out := &Tail{Limit: 1 << 20}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if change != nil {
		change(cmd)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // its children are killed with it
	}
	// A child of a killed shell may hold the pipe open.
	cmd.WaitDelay = 2 * time.Second
	if err := startIn(n.fd, cmd); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", strings.Join(command, " "), n.Name, err)
	}
	p := &Proc{Out: out, cmd: cmd, done: make(chan struct{})}
	go func() { // ends when the process does
		p.err = cmd.Wait()
		close(p.done)
	}()
	remember(p)
	n.lab.mu.Lock()
	n.lab.procs = append(n.lab.procs, p)
	n.lab.mu.Unlock()
	return p, nil
}

// finish waits for p and makes an error that shows what it said.
func (p *Proc) finish(limit time.Duration) (string, error) {
	err := p.Wait(limit)
	out := p.Out.String()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s", shortened(p.cmd.Args), err, strings.TrimSpace(out))
	}
	return out, nil
}

// shortened is a command as an error tells of it.
func shortened(command []string) string {
	const most = 40 // words
	if len(command) > most {
		return fmt.Sprintf("%s … (%d words more)", strings.Join(command[:most], " "), len(command)-most)
	}
	return strings.Join(command, " ")
}

// PID returns the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end and returns its error as exec.Cmd.Wait does.
// A process that does not end in time is killed, and the error is
// context.DeadlineExceeded.
func (p *Proc) Wait(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("killed after %v: %w", limit, context.DeadlineExceeded)
	}
}

// ExitCode returns the exit status, -1 when a signal ended the process, and waits
// for its end.
func (p *Proc) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal to the process.
func (p *Proc) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process and its children at once, and waits until it has ended.
func (p *Proc) Kill() {
	select {
	case <-p.done: // its group's number may belong to somebody else by now
	default:
		unix.Kill(-p.PID(), unix.SIGKILL)
	}
	<-p.done
}

// spawn hands commands to the one thread that forks (see the package comment).
var spawn = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() { // lives as long as the process
		runtime.LockOSThread()
		for f := range jobs {
			f()
		}
	}()
	return jobs
})

// startIn starts cmd in the network namespace of fd; -1 is the machine's own.
func startIn(fd int, cmd *exec.Cmd) error {
	result := make(chan error, 1)
	spawn() <- func() {
		if fd < 0 {
			result <- cmd.Start()
			return
		}
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(home)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		err = cmd.Start()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
			// The next process would start in the wrong place.
			panic(fmt.Sprintf("lab: leave namespace: %v", back))
		}
		result <- err
	}
	return <-result
}

// Tail keeps the last Limit bytes written to it, at least. Thread-safety: safe
// for concurrent use.
type Tail struct {
	Limit int // in bytes

	mu  sync.Mutex
	buf []byte
	cut bool
}

var _ io.Writer = (*Tail)(nil)

// Write never fails.
func (b *Tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - b.Limit; over > b.Limit { // cut seldom
		b.buf, b.cut = bytes.Clone(b.buf[over:]), true
	}
	return len(p), nil
}

// String returns what was kept.
func (b *Tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return "… (cut)\n" + string(b.buf)
	}
	return string(b.buf)
}
