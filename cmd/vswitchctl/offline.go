package main

import "github.com/spf13/cobra"

func (a *app) testConfig() *cobra.Command { return nil }
