// Package cni is the conversation of a container runtime with cmd/vswitch-cni (the CNI
// specification, 1.1.0), in terms of what the daemon is asked for.
package cni

import (
	_ "github.com/containernetworking/cni/pkg/skel" // the room's tool
)
