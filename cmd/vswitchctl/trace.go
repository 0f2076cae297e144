package main

import "github.com/spf13/cobra"

func (a *app) trace() *cobra.Command { return nil }
