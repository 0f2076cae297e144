package lab

import "vswitch/ctl/api"

// Client returns a client of the daemon's API.
func (d *Daemon) Client() *api.Client { return api.NewClient(d.Socket, ctlLimit) }
