// Package cni is the conversation of a container runtime with cmd/vswitch-cni (the CNI
// specification, 1.1.0), in terms of what the daemon is asked for. It plugs nothing by
// itself: veth pairs, addresses of our own and published ports are the daemon's.
//
// Its one idea: a runtime's attachment is the daemon's. Its owner is the network and its
// key CONTAINERID/IFNAME, so that a network's garbage collection can end what is not valid
// any more, and never what belongs to another network on the same bridge.
//
// The daemon keeps attachments over its own restarts. Nothing is kept here: what DEL must
// know, the network configuration and the environment say.
package cni

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
)

// Bounds. A kubelet gives its runtime two minutes for a pod (--runtime-request-timeout):
// the worst ADD, whose every step runs into its limit and is undone then, stays below.
const (
	maxOwner      = 32               // bytes
	maxConf       = 1 << 20          // bytes of a network configuration, a previous result included
	daemonLimit   = 15 * time.Second // an answer of the daemon
	delegateLimit = 30 * time.Second // another plug-in; DHCP's takes long
	collectLimit  = 90 * time.Second // all of a GC
	settleLimit   = 3 * time.Second  // until what was added is up, in CHECK
	settleAgain   = 50 * time.Millisecond
)

// versions are those of the specification that are spoken: 0.3.1 is the first whose result
// lists interfaces and whose configuration may be a list.
var versions = version.VersionsStartingFrom("0.3.1")

// Main is the plug-in: the command is in the environment (CNI_COMMAND and its like), the
// network configuration in stdin. It returns the exit status, 0 or 1; an error's code is in
// what was written to stdout.
func Main(stdin io.Reader, stdout io.Writer, about string) int {
	// A runtime that is gone must not end this process in the middle of an ADD: what could
	// not be told is undone.
	signal.Ignore(unix.SIGPIPE)
	conf, err := bounded(stdin)
	if err == nil {
		err = replaceStdin(conf)
	}
	var e *types.Error
	if err != nil {
		e = told(err)
	} else {
		e = skel.PluginMainFuncsWithError(Funcs(stdout), versions, about)
	}
	if e == nil {
		return 0
	}
	printError(stdout, e, conf)
	return 1
}

// bounded reads a network configuration, and refuses more than maxConf bytes.
func bounded(stdin io.Reader) ([]byte, error) {
	if os.Getenv("CNI_COMMAND") == "" || os.Getenv("CNI_COMMAND") == "VERSION" {
		return nil, nil // there need not be any: a person may sit at a terminal
	}
	conf, err := io.ReadAll(io.LimitReader(stdin, maxConf+1))
	if err != nil {
		return nil, types.NewError(types.ErrIOFailure, fmt.Sprintf("read network configuration from stdin: %v", err), "")
	}
	if len(conf) > maxConf {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("the network configuration is longer than %d bytes", maxConf), "")
	}
	return conf, nil
}

// replaceStdin makes conf what skel reads: skel reads os.Stdin to its end, however far
// that is, and takes no other reader.
func replaceStdin(conf []byte) error {
	fd, err := unix.MemfdCreate("cni", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("keep network configuration: %w", err)
	}
	f := os.NewFile(uintptr(fd), "stdin")
	if _, err := f.Write(conf); err != nil {
		return fmt.Errorf("keep network configuration: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("keep network configuration: %w", err)
	}
	os.Stdin = f
	return nil
}

// printError writes the error structure of the specification, section 5, whose version is
// that of the configuration.
func printError(w io.Writer, e *types.Error, conf []byte) {
	spoken, err := (&version.ConfigDecoder{}).Decode(conf)
	if err != nil {
		spoken = version.Current()
	}
	text, err := json.MarshalIndent(struct {
		Version string `json:"cniVersion"`
		*types.Error
	}{spoken, e}, "", "    ")
	if err == nil {
		w.Write(append(text, '\n'))
	}
}

// Funcs are the commands. ADD writes its result to out.
func Funcs(out io.Writer) skel.CNIFuncs {
	command := func(f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			if err := f(context.Background(), a); err != nil {
				return told(err) // only here: a nil *types.Error is an error that is not nil
			}
			return nil
		}
	}
	return skel.CNIFuncs{
		Add:    command(func(ctx context.Context, a *skel.CmdArgs) error { return add(ctx, a, out) }),
		Del:    command(del),
		Check:  command(check),
		GC:     command(collect),
		Status: command(status),
	}
}

// owner is whose the attachments of a network are. The daemon takes no owner longer than
// maxOwner: of a long name, digits that stand for it are the end.
func (n *network) owner() string {
	owner := "cni/" + n.name
	if len(owner) > maxOwner {
		sum := sha256.Sum256([]byte(n.name))
		owner = owner[:maxOwner-9] + "-" + hex.EncodeToString(sum[:4])
	}
	return owner
}

// key is what an attachment is called (specification, section 3: it is identified by both).
func key(containerID, ifname string) string { return containerID + "/" + ifname }

// dial returns a client of the network's daemon. It does not connect yet.
func (n *network) dial() *api.Client { return api.NewClient(n.socket, daemonLimit) }

// write prints the result in one piece, so that a reader never has half of it.
func write(out io.Writer, r types.Result) error {
	var text bytes.Buffer
	if err := r.PrintTo(&text); err != nil {
		return types.NewError(types.ErrInternal, fmt.Sprintf("encode result: %v", err), "")
	}
	text.WriteByte('\n')
	if _, err := out.Write(text.Bytes()); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("write result: %v", err), "")
	}
	return nil
}
