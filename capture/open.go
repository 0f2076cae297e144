package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// place is where files may be opened. The path of a file may come from somebody
// who is less than the daemon, which is root: so nothing outside the directories
// is opened, and below them no symbolic link is followed, whoever puts one there
// at whatever moment.
//
// Thread-safety: it never changes.
type place struct {
	dirs   []string // absolute; empty: anywhere
	except []string // absolute: below these only what is deeper in dirs
}

// split finds the directory that a path may be opened below, the deepest of
// those that hold it, and the path from there.
func (p place) split(path string) (dir, rest string, err error) {
	if len(p.dirs) == 0 {
		return "/", strings.TrimPrefix(path, "/"), nil
	}
	for _, d := range p.dirs {
		d = filepath.Clean(d)
		if r, ok := below(d, path); ok && len(d) > len(dir) {
			dir, rest = d, r
		}
	}
	if dir == "" {
		return "", "", fmt.Errorf("capture file %s: captures are written below %s only", path, strings.Join(p.dirs, ", "))
	}
	return dir, rest, nil
}

// below returns the way from a directory to a path beneath it. Both are clean.
func below(dir, path string) (rest string, ok bool) {
	if dir == "/" {
		return path[1:], path != "/"
	}
	return strings.CutPrefix(path, dir+"/")
}

// private refuses a path in directories that are somebody's own. It judges real
// paths, since a directory has many names.
func (p place) private(real, rest string) error {
	path := filepath.Join(real, rest)
	for _, e := range p.except {
		e, err := filepath.EvalSymlinks(e)
		if err != nil {
			continue // what is not there holds nothing
		}
		if _, inside := below(e, path); inside && len(real) <= len(e) {
			return fmt.Errorf("%s is the daemon's own directory: captures are written below %s only", e, strings.Join(p.dirs, ", "))
		}
	}
	return nil
}

// open opens a file for reading back and writing; one that it makes is readable
// by its group.
func (p place) open(path string) (file, error) {
	f, err := p.openFile(path, openBeneath)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (p place) openFile(path string, beneath func(dir int, rest string) (int, error)) (*os.File, error) {
	name, rest, err := p.split(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	// The directory itself is the operator's word: links in it are followed.
	dir, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(dir)
	if len(p.except) > 0 {
		real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
		if err != nil {
			return nil, err
		}
		if err := p.private(real, rest); err != nil {
			return nil, err
		}
	}
	fd, err := beneath(dir, rest)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is a symbolic link, or there is one on the way to it; name the file itself", path)
	case errors.Is(err, unix.EACCES) && !overridesModes():
		return nil, fmt.Errorf("%w; without CAP_DAC_OVERRIDE the daemon writes only directories of root's or world-writable ones",
			&os.PathError{Op: "open", Path: path, Err: err})
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

const (
	// O_NONBLOCK: a FIFO must not hold us up before it is refused.
	openFlags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	openMode  = 0o640
)

// openBeneath opens a path below dir without following any link: by openat2(2)
// (Linux 5.6), or step by step where that is not to be had. EPERM is what a
// system call filter that does not know openat2 answers.
func openBeneath(dir int, rest string) (int, error) {
	how := unix.OpenHow{
		Flags: openFlags, Mode: openMode,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(dir, rest, &how)
	// EAGAIN: something was renamed meanwhile, and the kernel cannot rule out an
	// escape (openat2(2), ERRORS).
	if err == unix.ENOSYS || err == unix.EPERM || err == unix.EAGAIN {
		return walkBeneath(dir, rest)
	}
	return fd, err
}

// walkBeneath opens a path below dir one name after the other. Every directory
// on the way is held open, so none can be exchanged for a link behind our back.
func walkBeneath(dir int, rest string) (int, error) {
	names := strings.Split(rest, "/")
	at := dir
	for _, name := range names[:len(names)-1] {
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOTDIR && isLink(at, name) {
			err = unix.ELOOP // as openat2 says it
		}
		if at != dir {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = next
	}
	fd, err := unix.Openat(at, names[len(names)-1], openFlags, openMode)
	if at != dir {
		unix.Close(at)
	}
	return fd, err
}

func isLink(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// overridesModes tells whether file modes do not bind this process.
func overridesModes() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 64 bits
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE) != 0
}
