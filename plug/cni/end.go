package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"vswitch/ctl/api"
)

// How attachments end (DEL, GC), and whether new ones can begin (STATUS).

// del ends an attachment. What is gone already is no error: the namespace is not looked at,
// nor is the bridge. Addresses of another IPAM plug-in are released even where the daemon
// does not answer.
func del(ctx context.Context, a *skel.CmdArgs) error {
	n, err := identify(a.StdinData)
	if err != nil {
		return err
	}
	client := n.dial()
	defer client.Close()
	k := key(a.ContainerID, a.IfName)
	errs := []error{asked("detach "+k, client.Detach(ctx, n.owner(), k))}
	if n.delegated() {
		errs = append(errs, n.delegateDel(ctx))
	}
	return errors.Join(errs...)
}

// collect ends the network's attachments that the runtime does not list, as many as it can.
func collect(ctx context.Context, a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(ctx, collectLimit)
	defer cancel()
	n, err := identify(a.StdinData)
	if err != nil {
		return err
	}
	valid, err := n.valid()
	if err != nil {
		return err
	}
	client := n.dial()
	defer client.Close()
	gone, err := client.CollectAttachments(ctx, api.Collect{Owner: n.owner(), Valid: valid})
	errs := []error{asked("collect attachments of network "+n.name, err)}
	if !n.delegated() {
		return errors.Join(errs...)
	}
	supported, err := n.delegateNew(ctx, invoke.DelegateGC)
	errs = append(errs, err)
	if !supported && err == nil {
		for _, k := range gone.Keys {
			if containerID, ifname, ok := strings.Cut(k, "/"); ok {
				errs = append(errs, n.delegateForget(ctx, containerID, ifname))
			}
		}
	}
	return errors.Join(errs...)
}

// valid are the keys of the attachments that stay. A list that is missing is empty, as the
// library of the specification has it.
func (n *network) valid() ([]string, error) {
	const name = "cni.dev/valid-attachments"
	keys := []string{}
	raw, ok := n.keys[name]
	if !ok {
		return keys, nil
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fail(types.ErrInvalidNetworkConfig, "%s: %s is not a list of attachments: %v", name, quoted(raw), err)
	}
	for i, one := range list {
		if one.ContainerID == "" || one.IfName == "" {
			return nil, fail(types.ErrInvalidNetworkConfig, "%s[%d]: containerID and ifname are required", name, i)
		}
		keys = append(keys, key(one.ContainerID, one.IfName))
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// status says whether ADD can work. Without its daemon a bridge forwards nothing: what is
// attached already suffers, too.
func status(ctx context.Context, a *skel.CmdArgs) error {
	w, err := read(a.StdinData, a.Args)
	if err != nil {
		return err
	}
	client := w.dial()
	defer client.Close()
	if _, err := w.look(ctx, client); err != nil {
		code := types.ErrPluginNotAvailable
		if told(err).Code == types.ErrTryAgainLater {
			code = types.ErrLimitedConnectivity
		}
		return fail(code, "%v", err)
	}
	if !w.delegated() {
		return nil
	}
	if _, err := w.delegateNew(ctx, invoke.DelegateStatus); err != nil {
		return fail(types.ErrPluginNotAvailable, "%v", fmt.Errorf("bridge %s is there, but %w", w.bridge, err))
	}
	return nil
}
