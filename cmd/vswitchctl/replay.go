package main

import "github.com/spf13/cobra"

func (a *app) replay() *cobra.Command { return nil }
