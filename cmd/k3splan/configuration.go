package main

import (
	"github.com/spf13/cobra"

	"k3splan/internal/plan"
)

func (a *app) configurationCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "configuration",
		Short: "Print the plan as k3splan understands it",
		Long: `Prints the plan in normal form: what was left out is filled in, rows and keys are sorted. It is
the data that Nix sees as config.cluster. It needs no secrets and shows none.`,
		Example: "  k3splan configuration\n  k3splan configuration --json | jq '.hosts.olaf.ip'",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.validPlan()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, p.Model())
			}
			return p.Model().WriteYAML(a.stdout)
		},
	}
	addJSON(command, &asJSON, plan.Model{})
	return command
}
