package nat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Whose a port is that is in use: proc(5) knows sockets by inode, and processes by the
// sockets they hold. A socket that is bound and does not listen, as our own, is in no list.

const (
	// holderLimit is what it may take to look through all processes; a name is worth no more.
	holderLimit = 200 * time.Millisecond
	// maxSockets is how many lines of a list are read.
	maxSockets = 1 << 16
)

// nameHolders says in the statuses who has the ports that are in use.
func (f *Firewall) nameHolders(inUse map[int]claimKey, limit time.Duration) {
	inodes := map[string][]int{}
	for i, k := range inUse {
		if inode := socketOf(k); inode != "" {
			inodes[inode] = append(inodes[inode], i)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(inodes) == 0 {
		return
	}
	end := time.Now().Add(limit)
	for _, dir := range processes {
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue // gone, or not to be looked into
		}
		for _, fd := range fds {
			link, err := os.Readlink(dir + "/fd/" + fd.Name())
			inode, ok := strings.CutPrefix(link, "socket:[")
			if err != nil || !ok {
				continue
			}
			for _, i := range inodes[strings.TrimSuffix(inode, "]")] {
				name, _ := os.ReadFile(dir + "/comm")
				f.status[i].Err = fmt.Sprintf("%s is in use: %s (process %s) has it", inUse[i], bytes.TrimSpace(name), filepath.Base(dir))
			}
			delete(inodes, strings.TrimSuffix(inode, "]"))
		}
		if len(inodes) == 0 || time.Now().After(end) {
			return
		}
	}
}

// socketOf is the inode of the socket that has a port, or "". An IPv6 socket may have
// the port of IPv4 as well.
func socketOf(k claimKey) string {
	name, state := "tcp", uint64(unix.BPF_TCP_LISTEN)
	if k.proto == unix.IPPROTO_UDP {
		name, state = "udp", uint64(unix.BPF_TCP_CLOSE) // that is, not connected
	}
	files := []string{name, name + "6"}
	if k.v6 {
		files = files[1:]
	}
	for _, file := range files {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		if inode := findSocket(text, k.port, state); inode != "" {
			return inode
		}
	}
	return ""
}

// findSocket looks in a list of sockets, as proc(5) describes them, for one at a port in
// a state, and returns its inode.
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20341 …
func findSocket(text []byte, port uint16, state uint64) string {
	n := 0
	for line := range bytes.Lines(text) {
		if n++; n > maxSockets {
			return ""
		}
		w := bytes.Fields(line)
		if len(w) < 10 {
			continue
		}
		_, at, ok := bytes.Cut(w[1], []byte(":"))
		if !ok {
			continue
		}
		p, err1 := strconv.ParseUint(string(at), 16, 16)
		s, err2 := strconv.ParseUint(string(w[3]), 16, 8)
		if err1 != nil || err2 != nil || uint16(p) != port || s != state {
			continue
		}
		if inode, err := strconv.ParseUint(string(w[9]), 10, 64); err == nil && inode != 0 {
			return strconv.FormatUint(inode, 10)
		}
	}
	return ""
}
