package main

import (
	"context"

	"github.com/spf13/cobra"

	"k3splan/internal/lifecycle"
	"k3splan/internal/plan"
)

func (a *app) replaceCommand() *cobra.Command {
	var flags lifeFlags
	var wanted lifecycle.Replacement
	command := &cobra.Command{
		Use:   "replace HOST",
		Short: "Make room for a new machine in the place of a dead one",
		Long: `For a machine that is dead and whose place a new one takes, under the same name and addresses. Shows
what would be done, asks, and then

  - removes its server from etcd, by a healthy one, and deletes its Node with
    the Node's password, so that the new machine may join under these names;
  - writes serial, mac and interface of the new machine into its row, if they
    are given;
  - keeps the ssh key that k3splan made for it, or with --new-key makes another
    one. A key that was adopted was on the old machine only, so another one is
    made.

A server is removed only while the others have the majority of etcd's votes; otherwise it is refused,
with the way out. If the host has the init server, a healthy one becomes it in the plan, and the new
machine's server joins that one.

It is refused while the old machine answers. Each step looks first at what is so already: after an
interruption the same command goes on. Afterwards a boot stick installs the new machine, and deploy
brings it into the cluster.`,
		Example: `  k3splan replace karl --dry-run
  k3splan replace karl --serial WD-WX12A3456789 --mac 52:54:00:12:34:56
  k3splan replace ulf --interface enp3s0 --new-key --yes`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeHostNames,
	}
	flags.add(command)
	cells := &cellFlags{command, map[string]*string{}, map[string]*[]string{}, new([]string)}
	cells.text("serial", "the `SERIAL` of the new machine's disk", nil)
	cells.text("mac", "the `MAC` address of the new machine's interface", nil)
	cells.text("interface", "the new machine's network `INTERFACE`", a.completeValues(func(h *plan.Host) []string { return []string{h.Interface} }))
	command.Flags().BoolVar(&wanted.NewKey, "new-key", false, "make a new ssh key for the host")
	command.RunE = func(_ *cobra.Command, args []string) (err error) {
		if wanted.Cells, err = cells.values(); err != nil {
			return err
		}
		return a.takeOut(args[0], flags, func(ctx context.Context, m *machines, view lifecycle.View, r lifecycle.Request) (*lifecycle.Outcome, error) {
			wanted.Request, wanted.Keys = r, m.keys
			return lifecycle.Replace(ctx, view, wanted)
		})
	}
	return command
}
