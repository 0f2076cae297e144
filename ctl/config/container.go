package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// How a document says which container is meant.

// The kinds of containers, in the order in which a bare name is looked up.
const (
	DockerContainer     = "docker"
	PodmanContainer     = "podman"
	ContainerdContainer = "containerd"
	NetNSContainer      = "netns"   // a name below /run/netns: ip-netns(8)
	PIDContainer        = "pid"     // a process: its number, and when it started
	PathContainer       = "path"    // a file that is a network namespace
	RuntimeContainer    = "runtime" // whom a runtime plugs by itself; no user's plug has it
)

// ContainerKinds are the words before the colon that a user may write.
func ContainerKinds() []string {
	return []string{DockerContainer, PodmanContainer, ContainerdContainer, NetNSContainer, PIDContainer}
}

// ContainerRef says which container is meant, as a document does. It is comparable.
type ContainerRef struct {
	Kind  string // docker, podman, containerd, netns, pid, path, runtime
	Name  string // a name or ID; of pid the number; of path the path
	Start uint64 // of pid: when the process started, in clock ticks since boot (proc(5), field 22 of stat); 0 is not known
}

// String is the canonical spelling.
func (c ContainerRef) String() string {
	switch {
	case c.Kind == PathContainer:
		return c.Name
	case c.Kind == PIDContainer && c.Start != 0:
		return fmt.Sprintf("%s:%s@%d", c.Kind, c.Name, c.Start)
	}
	return c.Kind + ":" + c.Name
}

// Short is what the container is called on its bridge: the last part of its name.
func (c ContainerRef) Short() string {
	if c.Kind == PathContainer {
		return path.Base(c.Name)
	}
	return c.Name
}

// ParseContainer reads a reference that names its kind, or a path. A bare name is
// Kind "", which no document takes: who is meant by it is for the machine to say.
func ParseContainer(s string) (ContainerRef, error) {
	c, why := parseContainer(s)
	if why != "" {
		return ContainerRef{}, find("container").wrong(s, why)
	}
	return c, nil
}

func parseContainer(s string) (c ContainerRef, why string) {
	const notOne = "is not a container"
	if strings.HasPrefix(s, "/") {
		p := path.Clean(s)
		if !printable(s) || strings.ContainsAny(s, ", ") || len(s) > 1024 || p == "/" {
			return c, "is not the path of a network namespace"
		}
		return ContainerRef{Kind: PathContainer, Name: p}, ""
	}
	kind, name, ok := strings.Cut(s, ":")
	if !ok {
		kind, name = "", s
	}
	if ok && kind != RuntimeContainer && !slices.Contains(ContainerKinds(), kind) {
		return c, notOne + didYouMean(kind, ContainerKinds())
	}
	if kind == PIDContainer {
		number, start, dated := strings.Cut(name, "@")
		n, ok := decimal(number)
		if !ok || n < 1 || n > 1<<22 { // PID_MAX_LIMIT, include/linux/threads.h
			return c, "is not a process"
		}
		c = ContainerRef{Kind: kind, Name: strconv.Itoa(n)}
		if dated {
			var err error
			if c.Start, err = strconv.ParseUint(start, 10, 64); err != nil {
				return c, "has no time of start in clock ticks behind its @"
			}
		}
		return c, ""
	}
	// Docker's names: [a-zA-Z0-9][a-zA-Z0-9_.-]+; the others are less than that, or IDs.
	if name == "" || len(name) > maxContainer || name[0] == '.' || name[0] == '-' {
		return c, notOne
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@+", r)) {
			return c, notOne
		}
	}
	return ContainerRef{Kind: kind, Name: name}, ""
}

// PlugName is the name that the port of a plug gets when nobody gives it one: part of
// the container's, and six digits that stand for it and the interface.
func PlugName(c ContainerRef, ifname string) string {
	sum := sha256.Sum256([]byte(c.String() + " " + ifname))
	var stem []byte
	for _, b := range []byte(c.Short()) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' {
			stem = append(stem, b)
		}
	}
	if len(stem) > 8 {
		stem = stem[:8]
	}
	if len(stem) == 0 {
		stem = []byte("plug")
	}
	return string(stem) + "-" + hex.EncodeToString(sum[:3])
}
