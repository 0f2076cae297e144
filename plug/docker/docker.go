// Package docker is the remote network driver and the IPAM driver that dockerd finds at a
// plug-in socket. It turns Docker's networks into bridges and Docker's endpoints into ports,
// as items that it asks the switch to hold. It never calls Docker from inside a driver call:
// dockerd holds its locks over these, and would hang.
package docker

import (
	"context"

	"vswitch/ctl/config"
	"vswitch/plug/held"
)

// Owner is the owner of the driver's items.
const Owner = "docker"

// Switch is what the driver asks of the daemon.
type Switch interface {
	// Hold puts items and deletes keys of Owner's, durably and all or none, and makes it true.
	Hold(ctx context.Context, put []held.Item, del []string) error
	// Held lists the driver's items.
	Held() []held.Item
	// Bridge finds a bridge of the expanded document: the operator's, or a held one.
	Bridge(name string) (config.Bridge, bool)
	// MeshBridge is the bridge that a mesh of the operator's is in.
	MeshBridge(mesh string) (string, bool)
	// MTU is what containers on a bridge can send, in bytes: what its tunnels carry.
	MTU(bridge string) int
	// Alias is what an interface made for a port carries, so that leftovers are known.
	Alias(port string) string
}
