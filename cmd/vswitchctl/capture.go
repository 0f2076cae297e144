package main

import "github.com/spf13/cobra"

func (a *app) capture() *cobra.Command { return nil }
