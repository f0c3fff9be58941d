package main

import (
	"github.com/spf13/cobra"

	"k3splan/internal/edit"
	"k3splan/internal/plan"
)

func (a *app) removeCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "remove",
		Short: "Remove a host, a server or an agent from the tables",
		Long: `Deletes rows of plans/hosts.csv and plans/k3s.csv; everything else keeps its bytes. The change is
shown and asked about, and nothing is written unless the plan is valid with it. Your own files and
secrets that are named after a host stay; they are named, to be deleted by you.

No machine is contacted. While a machine runs, ` + "`k3splan decommission`" + ` takes it out of the cluster
before its rows are removed.`,
		Example: "  k3splan remove agent ulf --yes\n  k3splan remove host karl --dry-run",
	}, a.removeHostCommand(), a.removeContainerCommand(plan.Server), a.removeContainerCommand(plan.Agent))
}

func (a *app) removeHostCommand() *cobra.Command {
	e := &editing{app: a, asks: true}
	command := &cobra.Command{
		Use:   "host NAME",
		Short: "Remove a machine with its containers",
		Long: `Deletes the machine's row in plans/hosts.csv, and those of its server and agent in plans/k3s.csv. The
machine itself keeps running with them: while it is alive, use ` + "`k3splan decommission`" + `.`,
		Example:           "  k3splan remove host karl --yes\n  k3splan remove host ulrich --dry-run",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeHostNames,
	}
	e.flags(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		return e.run(func(tables *edit.Edit) error { return tables.RemoveHost(args[0]) }, e.thenDeploy)
	}
	return command
}

// removeContainerCommand is `remove server` or `remove agent`.
func (a *app) removeContainerCommand(role plan.Role) *cobra.Command {
	e := &editing{app: a, asks: true}
	kind := string(role)
	command := &cobra.Command{
		Use:   kind + " HOST|NAME",
		Short: "Remove the k3s " + kind + " of a host",
		Long: `Deletes the server's row in plans/k3s.csv. A cluster that lives keeps the member in etcd until it
is removed there, too; deploy shows how. The init server can go only as the last one: let another
one be of type "init" first.`,
		Example: "  k3splan remove server rolf --yes\n  k3splan remove server rolf-k3s-server --dry-run",
		Args:    usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeName(func(p *plan.Plan) []string {
			return containerNames(p.Servers())
		}),
	}
	if role == plan.Agent {
		command.Long = `Deletes the agent's row in plans/k3s.csv. A cluster that lives keeps the node until it is deleted
there, too: kubectl delete node NAME.`
		command.Example = "  k3splan remove agent ulf --yes\n  k3splan remove agent ulf-k3s-agent --dry-run"
		command.ValidArgsFunction = a.completeName(func(p *plan.Plan) []string { return containerNames(p.Agents()) })
	}
	e.flags(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		return e.run(func(tables *edit.Edit) error { return tables.RemoveContainer(role, args[0]) }, e.thenDeploy)
	}
	return command
}

// containerNames are the names of containers and of the hosts that they are on.
func containerNames(containers []*plan.Container) []string {
	var names []string
	for _, c := range containers {
		names = append(names, c.Host.Name, c.Name)
	}
	return names
}
