package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"k3splan/internal/rollout"
)

func (a *app) rollbackCommand() *cobra.Command {
	var request rollout.RollbackRequest
	var flags deployFlags
	to := ""
	command := &cobra.Command{
		Use:   "rollback HOST…",
		Short: "Bring hosts back to an earlier generation",
		Long: `Activates an earlier generation of a host's system, and lets the host boot it from now on. Without --to
it is the last one that was deployed before the one of today or, after a deployment that did not end well,
the last one that did. "k3splan generations HOST" lists them. A HOST may be a pattern or @TAG; !HOST
leaves hosts out.

Several hosts are brought back in the order of a deployment, behind the same gates: servers one at a time,
never one while another is down. Nothing is evaluated, built or copied. Secrets are files beside the system
and stay as they are; so does what k3s and your programs have stored.

A server is not brought back across a minor version of k3s, as its data cannot go back: restore a snapshot
of etcd. Nor is it if it had another name or address then (--force does both anyway).

Until the plan is deployed again, "k3splan status" shows the host as rolled back, and "k3splan deploy" says
that it would undo that. The plan itself stays as it is: change it before you deploy again.

A snapshot of etcd is made before a wave that changes k3s. What is about to happen is shown and asked about
(--yes confirms). If it is interrupted, the same command continues.`,
		Example: `  k3splan generations karl
  k3splan rollback karl --dry-run
  k3splan rollback karl
  k3splan rollback karl --to 12`,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			if !command.Flags().Changed("parallel") {
				request.Limits.Parallel = parallelByDefault()
			}
			var err error
			if request.To, err = generationNumber(command.Flags().Changed("to"), to); err != nil {
				return usageError(err)
			}
			return a.rollback(args, request, flags)
		},
	}
	f := command.Flags()
	f.StringVar(&to, "to", "", "the number of the `GENERATION` on each of the hosts (default: the one that was deployed before)")
	f.BoolVar(&request.DryRun, "dry-run", false, "show what would be done, in which order, and change nothing")
	f.BoolVarP(&flags.yes, "yes", "y", false, "confirm everything in advance")
	f.BoolVar(&request.Force, "force", false, "also do what is refused")
	f.BoolVar(&request.NoSnapshot, "no-snapshot", false, "make no snapshot of etcd before waves that change k3s")
	addGateFlags(f, &request.GateTimeout, &request.GatePause, &flags.unavailable, &request.Limits.Parallel)
	addJSON(command, &flags.asJSON, deployResults{}, deployProposal{})
	return command
}

// generationNumber reads the value of --to.
func generationNumber(isSet bool, text string) (int, error) {
	if !isSet {
		return 0, nil
	}
	number := 0
	for _, digit := range text {
		if digit < '0' || digit > '9' || number > 1<<30 {
			number = 0
			break
		}
		number = 10*number + int(digit-'0')
	}
	if number < 1 {
		return 0, fmt.Errorf("--to: %q is not the number of a generation (k3splan generations HOST lists them)", text)
	}
	return number, nil
}

// rollback completes the request, and shows what became of it.
func (a *app) rollback(patterns []string, request rollout.RollbackRequest, flags deployFlags) (err error) {
	if len(patterns) == 0 {
		return usageError(errors.New("which hosts? name them; '*' is all"))
	}
	if request.Project, err = a.validProject(); err != nil {
		return err
	}
	if request.Selected, err = selectHosts(request.Project.Plan, patterns); err != nil {
		return err
	}
	if err := flags.complete(&request.Limits, request.GateTimeout, request.Project, request.Selected); err != nil {
		return err
	}
	return a.roll(flags, request.DryRun, rollout.RolledBack, "nothing is to be rolled back: the hosts run these generations", func(ctx context.Context, view deployView) (*rollout.Outcome, error) {
		return rollout.Rollback(ctx, a.environment(request.Project), view, request)
	})
}
