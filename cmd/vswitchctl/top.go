package main

import "github.com/spf13/cobra"

func (a *app) top() *cobra.Command { return nil }
