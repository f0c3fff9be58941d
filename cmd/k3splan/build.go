package main

import (
	"errors"

	"github.com/spf13/cobra"

	"k3splan/internal/rollout"
)

func (a *app) buildCommand() *cobra.Command {
	var memory byteSize
	var asJSON bool
	command := &cobra.Command{
		Use:   "build [HOST…] [-- ARGS]",
		Short: "Build the systems of the hosts",
		Long: `Renders the hive and builds the systems of all hosts, or of those that are named. A HOST may be a
pattern or @TAG; !HOST leaves hosts out.

Each host is evaluated as Colmena does it, and what was found is remembered: deploy does not evaluate
it again as long as nothing of it changes. Several hosts are evaluated at the same time, as many as
there are processors and memory for (--eval-memory). A host that fails leaves the others alone.

One Nix builds all systems, here and on the builders that it is configured with. With arguments after
--, which are passed to Colmena, Colmena builds them. generated/ stays.`,
		Example:           "  k3splan build\n  k3splan build olaf '@k3s-agent' -- --verbose",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			patterns, extra := splitArgs(command, args)
			request := rollout.Request{Args: extra, EvalMemory: int64(memory)}
			if err := a.selectFor(&request, patterns); err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			built, err := rollout.Build(ctx, a.environment(request.Project), a.user(false), request)
			if len(built) == 0 {
				return err
			}
			return errors.Join(a.print(asJSON, built, func() (string, error) {
				var rows [][]string
				for _, host := range built {
					rows = append(rows, []string{host.Host, host.System})
				}
				return a.table([]string{"HOST", "SYSTEM"}, rows), nil
			}), err)
		},
	}
	addEvalMemory(command.Flags(), &memory)
	addJSON(command, &asJSON, []rollout.Built{})
	return command
}
