package ctl

import (
	"context"

	"vswitch/ctl/api"
)

// Tunnels lists the tunnel ports of a bridge, or of all.
func (d *Daemon) Tunnels(context.Context, string) ([]api.TunnelStatus, error) { return nil, nil }

// Meshes lists the meshes, or the one of that name.
func (d *Daemon) Meshes(context.Context, string) ([]api.MeshStatus, error) { return nil, nil }
