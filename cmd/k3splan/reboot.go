package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/rollout"
)

func (a *app) rebootCommand() *cobra.Command {
	var request rollout.Request
	var needed, yes, asJSON bool
	order := rollout.Order{}
	command := &cobra.Command{
		Use:   "reboot [HOST…]",
		Short: "Reboot hosts in the order that they ask for",
		Long: `Reboots all hosts, or those that are named, step by step as ` + "`k3splan sequence`" + ` shows. For each host it
waits the host's reboot_delay (not for the first one) and until the hosts that it depends on are
healthy; drains its Node, through a healthy server and as PodDisruptionBudgets allow it; reboots it;
waits until it answers after another boot and passes the gate of a deployment and its health checks;
and lets its Node take pods again, unless that was cordoned before.

Two servers never reboot at the same time, and no server while etcd would lose its quorum. A host that
does not come back stops everything: no further host is begun, and what was done is listed. After
Ctrl-C no further host is begun either, and a host that was not rebooted yet takes pods again.`,
		Example:           "  k3splan reboot --needed --dry-run\n  k3splan reboot karl --yes\n  k3splan reboot '@storage' --needed",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case order.DrainLimit < time.Second:
				return usageError(errors.New("--drain-timeout must be a second or more"))
			case request.GateTimeout <= 0:
				return usageError(errors.New("--timeout must be above zero"))
			}
			p, machines, hosts, err := a.hostMachines(args)
			if err != nil {
				return err
			}
			if err := refuseUnknown(hosts, p.HostKeys); err != nil {
				return err
			}
			request.Project, request.Every, request.All = p, len(args) == 0, !needed
			request.Order, order.Machines = &order, machines
			request.Selected, request.Limits = hosts, rollout.Limits{Unavailable: 1, Parallel: parallelByDefault()}
			// what is wrong in a snippet is said before any host is asked
			if _, err := rollout.Sequence(p.Plan, machines, request.Selected, nil, request.Limits); err != nil {
				return usageError(err)
			}
			ctx, stop := interruptible()
			defer stop()
			started, view := time.Now(), deployView{User: a.user(yes), app: a}
			outcome, err := rollout.Reboot(ctx, a.environment(p), view, request)
			if outcome == nil {
				return err
			}
			if request.DryRun {
				if shown := a.showDryRun(view, *outcome, "no host needs a reboot", asJSON); shown != nil {
					return shown
				}
				return err
			}
			if shown := a.showResults(outcome.Results, rollout.Rebooted, started, asJSON); shown != nil {
				return shown
			}
			return err
		},
	}
	f := command.Flags()
	f.BoolVar(&needed, "needed", false, "only hosts that need it, as status shows")
	f.BoolVar(&request.DryRun, "dry-run", false, "show what would be done, and reboot nothing")
	f.BoolVarP(&yes, "yes", "y", false, "confirm everything in advance")
	f.BoolVar(&request.Force, "force", false, "also do what is refused")
	f.BoolVar(&order.NoDrain, "no-drain", false, "leave the pods on the Nodes")
	f.DurationVar(&order.DrainLimit, "drain-timeout", 5*time.Minute, "how long pods may take to leave a Node")
	f.BoolVar(&order.LosesEmptyDir, "delete-emptydir-data", false, "also evict pods that lose what they keep in emptyDir volumes")
	f.DurationVar(&request.GateTimeout, "timeout", 10*time.Minute, "how long a host may take to come back, and to become healthy")
	f.DurationVar(&request.GatePause, "gate-pause", 2*time.Second, "how long a gate waits before it asks again")
	_ = f.MarkHidden("gate-pause")
	addJSON(command, &asJSON, deployResults{}, deployProposal{})
	return command
}
