package main

import (
	"github.com/spf13/cobra"

	"k3splan/internal/edit"
	"k3splan/internal/plan"
)

func (a *app) renameCommand() *cobra.Command {
	e := &editing{app: a}
	command := &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Rename a host, a server or an agent",
		Long: `Writes the new name into plans/hosts.csv and wherever plans/k3s.csv names the host, and renames
your files that are named after it: nixConfigs/OLD.nix, partitioning/OLD.nix, hardware/OLD.nix,
secrets/OLD_passwd, secrets/OLD.pub, secrets/NAME-OLD.pub and the like, the entries of pass, and the
host's lines in plans/known_hosts.

The containers of a host keep their own names, because a running cluster knows them by these; rename
them separately. Other occurrences of the old name in your files are listed, not changed.`,
		Example:           "  k3splan rename karl carl\n  k3splan rename karl-k3s-agent karl-worker --dry-run",
		Args:              renameArgs,
		ValidArgsFunction: a.completeName(namesOf),
	}
	e.flags(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		return e.run(func(tables *edit.Edit) error { return tables.Rename(args[0], args[1]) }, e.thenDeploy)
	}
	return command
}

// namesOf are the names of all hosts and containers.
func namesOf(p *plan.Plan) []string { return append(p.HostNames(), plan.Names(p.Containers())...) }
