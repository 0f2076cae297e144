package main

import "github.com/spf13/cobra"

func (a *app) why() *cobra.Command { return nil }
