package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Group may use the socket, where it exists.
const Group = "vswitch"

// Listen listens on a unix socket at path, with mode 0660 and group vswitch
// where that group exists. A socket that somebody answers on is an error; one
// that a killed daemon left behind is replaced.
func Listen(path string) (net.Listener, error) {
	if err := checkFree(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The socket is made under another name and moved into place when its mode
	// and group are right: there is no moment at which anybody may connect.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	u := &unixListener{UnixListener: ln, path: path}
	if err := u.place(tmp); err != nil {
		ln.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return u, nil
}

// checkFree returns nil when path is free, or a socket nobody answers on.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is not a socket is in the way")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return errors.New("another daemon answers on this socket")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	default: // a full backlog (EAGAIN) is a daemon too
		return fmt.Errorf("cannot tell whether another daemon answers on this socket: %w", err)
	}
}

// unixListener removes its socket when it closes, but never another's.
type unixListener struct {
	*net.UnixListener
	path string
	self fs.FileInfo
	once sync.Once
}

func (u *unixListener) place(tmp string) error {
	if err := os.Chmod(tmp, 0o660); err != nil {
		return err
	}
	if g, err := user.LookupGroup(Group); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return fmt.Errorf("group %s: %w", Group, err)
		}
		// A daemon that is not root and not in the group keeps its own.
		if err := os.Chown(tmp, -1, gid); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	info, err := os.Lstat(tmp)
	if err != nil {
		return err
	}
	u.self = info
	return os.Rename(tmp, u.path)
}

func (u *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: u.path, Net: "unix"} }

func (u *unixListener) Close() error {
	u.once.Do(func() {
		if now, err := os.Lstat(u.path); err == nil && os.SameFile(now, u.self) {
			os.Remove(u.path)
		}
	})
	return u.UnixListener.Close()
}

// limitListener serves max connections. As many again are accepted to be told
// that there is no room; beyond those a connection is closed at once.
type limitListener struct {
	net.Listener
	max  int
	open atomic.Int64
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := int(l.open.Add(1))
		if n > 2*l.max {
			l.open.Add(-1)
			c.Close()
			continue
		}
		return &limitConn{Conn: c, from: l, surplus: n > l.max}, nil
	}
}

type limitConn struct {
	net.Conn
	from    *limitListener
	surplus bool
	once    sync.Once
}

func (c *limitConn) Close() error {
	c.once.Do(func() { c.from.open.Add(-1) })
	return c.Conn.Close()
}

// CloseWrite lets net/http finish an answer before it closes.
func (c *limitConn) CloseWrite() error {
	if u, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return u.CloseWrite()
	}
	return nil
}

type surplusKey struct{}

func markSurplus(ctx context.Context, c net.Conn) context.Context {
	if lc, ok := c.(*limitConn); ok && lc.surplus {
		return context.WithValue(ctx, surplusKey{}, true)
	}
	return ctx
}

func isSurplus(ctx context.Context) bool { return ctx.Value(surplusKey{}) != nil }
