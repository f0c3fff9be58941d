package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/lifecycle"
)

func (a *app) decommissionCommand() *cobra.Command {
	var flags lifeFlags
	var wanted lifecycle.Decommissioning
	command := &cobra.Command{
		Use:   "decommission HOST",
		Short: "Take a machine out of the cluster and out of the plan",
		Long: `Shows what would be done, asks, and then

  - drains its Node, as PodDisruptionBudgets allow it; pods of daemon sets stay,
    and what pods keep in emptyDir volumes is lost;
  - stops its agent and its server, and keeps them from starting again;
  - removes its server from etcd, by a healthy one, and deletes its Node;
  - with --wipe-state deletes the state of k3s, its tokens and the local volumes
    of pods on the machine; disks are never touched;
  - retires its password and its ssh key, and removes it from the plan and from
    plans/known_hosts.

A server leaves only while the others alone have the majority of etcd's votes; otherwise it is refused,
with what to do first. If the host has the init server, a healthy one becomes it in the plan.

Each step looks first at what is so already: after an interruption the same command goes on. Of a host
that does not answer, what can be done without it is done, and what is left is said; it is refused while
its server or Node still answers the cluster. The others' /etc/hosts change with the next deploy.`,
		Example: `  k3splan decommission karl --dry-run
  k3splan decommission karl --wipe-state
  k3splan decommission ulf --yes --json`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeHostNames,
		RunE: func(_ *cobra.Command, args []string) error {
			if wanted.DrainLimit < time.Second {
				return usageError(errors.New("--drain-timeout must be a second or more"))
			}
			return a.takeOut(args[0], flags, func(ctx context.Context, _ *machines, view lifecycle.View, r lifecycle.Request) (*lifecycle.Outcome, error) {
				wanted.Request = r
				return lifecycle.Decommission(ctx, view, wanted)
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&wanted.WipeState, "wipe-state", false, "delete the state of k3s and its tokens on the machine")
	command.Flags().BoolVar(&wanted.NoDrain, "no-drain", false, "stop the agent without moving its pods elsewhere first")
	command.Flags().DurationVar(&wanted.DrainLimit, "drain-timeout", 5*time.Minute, "how long pods may take to leave")
	return command
}
