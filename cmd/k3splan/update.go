package main

import "github.com/spf13/cobra"

func (a *app) updateCommand() *cobra.Command { return &cobra.Command{Use: "update"} }
