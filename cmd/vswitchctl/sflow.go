package main

import "github.com/spf13/cobra"

func (a *app) sflow() *cobra.Command { return nil }
