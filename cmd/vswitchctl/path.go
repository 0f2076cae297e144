package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// tracePath shows the way of marked frames from a port to an address.
func (a *app) tracePath(cmd *cobra.Command, target, fromPort string) error {
	return errors.New("trace --path: this daemon sends no probes")
}
