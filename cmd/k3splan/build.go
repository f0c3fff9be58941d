package main

import (
	"github.com/spf13/cobra"

	"k3splan/internal/rollout"
)

func (a *app) buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [HOST…] [-- ARGS]",
		Short: "Build the systems of the hosts with Colmena",
		Long: `Renders the hive and has Colmena build the systems of all hosts, or of those that are named.
A HOST may be a pattern or @TAG; !HOST leaves hosts out. Arguments after -- are passed to Colmena.
generated/ stays.`,
		Example:           "  k3splan build\n  k3splan build olaf '@k3s-agent' -- --verbose",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			patterns, extra := splitArgs(command, args)
			request := rollout.Request{Args: extra}
			if err := a.selectFor(&request, patterns); err != nil {
				return err
			}
			return rollout.Build(a.environment(request.Project), request)
		},
	}
}
