package main

import "github.com/spf13/cobra"

func (a *app) logLevel() *cobra.Command { return nil }
