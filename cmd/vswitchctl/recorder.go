package main

import "github.com/spf13/cobra"

func (a *app) recorder() *cobra.Command { return nil }
