package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
)

// What the kernel knows of namespaces and processes.

// nsfsMagic is NSFS_MAGIC (include/uapi/linux/magic.h): the file system of namespaces.
const nsfsMagic = 0x6e736673

// identity tells one namespace from the next at the same path.
//
// The inode's number alone does not: the kernel gives the lowest free one, so a namespace
// may have that of one which was removed before. Where the namespace is a mount, its inode
// lives as long as the mount, and says by its ctime when it began, to a tick of the
// kernel's clock. Below /proc there is no mount, and an inode is made whenever somebody
// looks: there the process tells (see incarnation).
type identity struct {
	dev, ino uint64
	began    int64 // ctime of a mount in ns; 0 below /proc
}

func (i identity) sameNamespace(j identity) bool { return i.dev == j.dev && i.ino == j.ino }

// errNoNetNS says that there is something, which is no network namespace.
var errNoNetNS = errors.New("not a network namespace")

// netnsAt says which network namespace is at path.
func netnsAt(path string) (id identity, err error) {
	if path == "" {
		return id, os.ErrNotExist
	}
	// What is no namespace is not opened: to open a device or a pipe can do things. O_PATH
	// does not open, and what it holds is not another when the path's links are changed.
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return id, err
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil {
		return id, err
	}
	if fs.Type != nsfsMagic {
		return id, errNoNetNS
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return id, err
	}
	defer unix.Close(fd)
	// ioctl_ns(2), Linux 4.11. What is no namespace after all does not know it.
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return id, errNoNetNS
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_CTIME, &st); err != nil {
		return id, err
	}
	return identityOf(&st), nil
}

func identityOf(st *unix.Statx_t) identity {
	id := identity{dev: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), ino: st.Ino}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 { // Linux 5.8
		id.began = st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)
	}
	return id
}

// mark is what one call tells of a file: no less than its identity does where it is a
// namespace. The directory of a process has another inode when the process is another one,
// since procfs counts them up (fs/proc/base.c: proc_pid_make_inode), and may have another
// one at any time.
type mark struct {
	identity
	mount uint64 // STATX_MNT_ID_UNIQUE, Linux 6.8; before, one that may come again
}

func markOf(path string) (m mark, ok bool) {
	var st unix.Statx_t
	const what = unix.STATX_INO | unix.STATX_CTIME | unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, what, &st); err != nil {
		return m, false
	}
	return mark{identityOf(&st), st.Mnt_id}, true
}

// procNetNS is the path of a process's network namespace.
func procNetNS(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/net" }

// maxStat bounds what is read of small files below /proc and in containerd's state.
const maxStat = 4096

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxStat))
}

// processStart is when a process started, in clock ticks since boot.
func processStart(pid int) (uint64, error) {
	text, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStart(text)
}

// parseStart reads field 22 of /proc/PID/stat (proc(5)). Field 2 is the command's name in
// parentheses, which may hold spaces and parentheses itself: fields are counted behind the
// last one.
func parseStart(stat []byte) (uint64, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("its stat has no command")
	}
	const third, start = 3, 22
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) <= start-third {
		return 0, errors.New("its stat has no time of start")
	}
	switch fields[0] {
	case "Z", "X", "x":
		return 0, os.ErrNotExist // it has ended, and nobody has asked for its status yet
	}
	return strconv.ParseUint(fields[start-third], 10, 64)
}

// lookProcess is pid: a process by its number and, where the ref has it, its start.
func lookProcess(ref config.ContainerRef) (Container, error) {
	pid, err := strconv.Atoi(ref.Name)
	if err != nil || pid < 1 {
		return Container{}, fmt.Errorf("%q is no process", ref.Name)
	}
	start, err := processStart(pid)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return Container{}, fmt.Errorf("%w: no process %d runs", ErrUnknown, pid)
	case err != nil:
		return Container{}, fmt.Errorf("%w: process %d: %w", ErrNoAnswer, pid, err)
	case ref.Start != 0 && ref.Start != start:
		return Container{}, fmt.Errorf("%w: process %d is another one, that started later", ErrUnknown, pid)
	}
	ref.Start = start
	c := Container{Ref: ref, PID: pid, Names: []string{ref.Name}}
	if err := c.settle(); err != nil {
		return Container{}, err
	}
	if !c.Running {
		return Container{}, fmt.Errorf("%w: process %d ended", ErrUnknown, pid)
	}
	return c, nil
}

// lookPath is a file that is a network namespace.
func lookPath(ref config.ContainerRef) (Container, error) {
	c := Container{Ref: ref, NetNS: ref.Name, Names: []string{ref.Short()}}
	return c.mounted()
}

// mounted is what is found by a path: there is nothing to know but whether it is there.
func (c Container) mounted() (Container, error) {
	path := c.NetNS
	if err := c.settle(); err != nil {
		return Container{}, err
	}
	if c.Running {
		return c, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return Container{}, fmt.Errorf("%w: there is no %s", ErrUnknown, path)
	}
	return Container{}, fmt.Errorf("%w: %s is not a network namespace", ErrUnknown, path)
}

// findNetNS is a named namespace, as ip-netns(8) makes them.
func (r *Runtimes) findNetNS(_ context.Context, name string) (Container, error) {
	path := filepath.Join(r.netns, name)
	c := Container{Ref: config.ContainerRef{Kind: config.NetNSContainer, Name: name}, NetNS: path, Names: []string{name}}
	return c.mounted()
}

func (r *Runtimes) netnsNames(context.Context) []string {
	names, _ := namesIn(r.netns)
	return names
}

// namesIn lists a directory, as far as its names can be names of containers.
func namesIn(dir string) (list []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(maxList)
	if err != nil && err != io.EOF { // it is empty
		return nil, err
	}
	slices.Sort(all)
	for _, name := range all {
		if validName(name) {
			list = append(list, name)
		}
	}
	return list, nil
}
