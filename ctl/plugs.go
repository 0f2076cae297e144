package ctl

import (
	"context"

	"vswitch/ctl/api"
)

var errNoPlugs = &api.Error{Status: 501, Message: "not built yet"}

// Plug is described at api.PlugService.
func (d *Daemon) Plug(ctx context.Context, q api.PlugRequest) (api.PlugResult, error) {
	return api.PlugResult{}, errNoPlugs
}

// Unplug is described at api.PlugService.
func (d *Daemon) Unplug(ctx context.Context, q api.UnplugRequest) (api.UnplugResult, error) {
	return api.UnplugResult{}, errNoPlugs
}

// Plugged is described at api.PlugService.
func (d *Daemon) Plugged(ctx context.Context, bridge string) ([]api.PlugStatus, error) {
	return nil, errNoPlugs
}

// Published is described at api.PlugService.
func (d *Daemon) Published(ctx context.Context, bridge string) ([]api.PublishStatus, error) {
	return nil, errNoPlugs
}

// Leases is described at api.PlugService.
func (d *Daemon) Leases(ctx context.Context, bridge string) ([]api.LeaseStatus, error) {
	return nil, errNoPlugs
}

// Attach is described at api.PlugService.
func (d *Daemon) Attach(ctx context.Context, q api.Attachment) (api.Attached, error) {
	return api.Attached{}, errNoPlugs
}

// Detach is described at api.PlugService.
func (d *Daemon) Detach(ctx context.Context, owner, key string) error { return errNoPlugs }

// Attachments is described at api.PlugService.
func (d *Daemon) Attachments(ctx context.Context, owner string) ([]api.Attached, error) {
	return nil, errNoPlugs
}

// CollectAttachments is described at api.PlugService.
func (d *Daemon) CollectAttachments(ctx context.Context, q api.Collect) (api.Collected, error) {
	return api.Collected{}, errNoPlugs
}
