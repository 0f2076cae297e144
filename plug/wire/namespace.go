package wire

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace. Close gives it back.
//
// Thread-safety: immutable; may be used by many goroutines until Close.
type Namespace struct {
	fd int
	id ID
}

// ID identifies a namespace as long as it lives: device and inode of its file in nsfs.
// It is comparable.
type ID struct{ Dev, Ino uint64 }

// here is the namespace of the calling thread.
const here = "/proc/thread-self/ns/net"

// Open opens the network namespace at path: /proc/PID/ns/net, /run/netns/NAME, or
// what a runtime names. What is no network namespace, and the one that the caller is in,
// are refused.
func Open(path string) (*Namespace, error) {
	n, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	var own unix.Stat_t
	if err := unix.Stat(here, &own); err != nil {
		n.Close()
		return nil, fmt.Errorf("look at this process's network namespace: %w", err)
	}
	if n.id == idOf(&own) {
		n.Close()
		return nil, fmt.Errorf("open network namespace %s: it is the host's own", path)
	}
	return n, nil
}

func open(path string) (*Namespace, error) {
	fd, err := openNS(path)
	if err == unix.EACCES {
		// Also said of a process that ends at this moment (proc_ns_get_link).
		fd, err = openNS(path)
	}
	if err == unix.ENOENT || err == unix.ESRCH {
		return nil, ErrNoNamespace
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = isNetNS(fd); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Namespace{fd: fd, id: idOf(&st)}, nil
}

// openNS opens what is of nsfs, and nothing else: to open a FIFO may wait, and to open a device
// may do things. O_PATH does not open, and what it holds is not another when links of the path
// are changed.
func openNS(path string) (int, error) {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil {
		return -1, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return -1, errors.New("it is no network namespace")
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// isNetNS asks nsfs. Its ioctl is asked of nsfs alone: to another file system the
// number may mean something else.
func isNetNS(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errors.New("it is no network namespace")
	}
	// ioctl_ns(2): the type is the CLONE_ flag that makes such a namespace.
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("ask what kind of namespace it is: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		return errors.New("it is no network namespace")
	}
	return nil
}

func idOf(st *unix.Stat_t) ID { return ID{Dev: st.Dev, Ino: st.Ino} }

// ID tells namespaces apart.
func (n *Namespace) ID() ID { return n.id }

// Close gives the namespace back, which ends when nobody else holds it.
func (n *Namespace) Close() error { return unix.Close(n.fd) }

// netlink opens rtnetlink(7) in the namespace. The socket stays there whatever thread
// uses it.
func (n *Namespace) netlink() (h *netlink.Handle, err error) {
	err = n.inside(func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in the container's namespace: %w", err)
	}
	return h, nil
}

// inside calls f on a thread that is in the namespace for as long. The thread goes back
// to where it came from; one that cannot is never used again.
func (n *Namespace) inside(f func() error) error {
	done := make(chan error, 1)
	go func() { // ends with f
		runtime.LockOSThread()
		home, err := unix.Open(here, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer unix.Close(home)
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter the container's namespace: %w", err)
			return
		}
		err = f()
		// A goroutine that ends locked takes its thread with it.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
