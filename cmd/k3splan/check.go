package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/health"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// checkRow is the result of a check, for --json.
type checkRow struct {
	Host    string `json:"host"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Target  string `json:"target"`
	From    string `json:"from"`
	Healthy bool   `json:"healthy"`
	// Seconds is how long the check took.
	Seconds float64 `json:"seconds"`
	// Reason is why it failed, or empty.
	Reason string `json:"reason"`
}

func (a *app) checkCommand() *cobra.Command {
	var asJSON bool
	var wait time.Duration
	command := &cobra.Command{
		Use:   "check [HOST…]",
		Short: "Make the health checks of the hosts",
		Long: `Makes the health checks of all hosts, or of those that are named, all at once: an http check asks for a
URL, tcp connects to a port, command runs a command, unit asks for a unit of systemd. Each is made from
where it says: from this machine, or on the host itself, over one connection a host. A HOST may be a
pattern or @TAG; !HOST leaves hosts out.

The exit code is 1 if a check fails. With --wait they are repeated until all of them pass.`,
		Example:           "  k3splan check\n  k3splan check karl --wait 5m\n  k3splan check '@storage' --json",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			if command.Flags().Changed("wait") && wait <= 0 {
				return usageError(errors.New("--wait needs a time above 0, such as 5m"))
			}
			p, machines, hosts, err := a.hostMachines(args)
			if err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			ssh, err := remote.Prepare(p.Dir, p.Plan, p.HostKeys)
			if err != nil {
				return err
			}
			defer ssh.Close()
			checks := health.Checks{Hosts: hosts, Machines: machines, At: ssh.Machines(remote.DeployUser)}
			var results []health.Result
			if wait > 0 {
				last := -1
				results = checks.Wait(ctx, wait, checkPause, func(results []health.Result) {
					if failing := failed(results); failing != last {
						last = failing
						a.say("waiting for %s of %d", text.Count(failing, "check"), len(results))
					}
				})
			} else {
				results = checks.Run(ctx)
			}
			if ctx.Err() != nil {
				return fmt.Errorf("checking the hosts: %w", context.Cause(ctx))
			}
			if err := a.print(asJSON, checkRows(results), func() (string, error) { return a.checkTable(results), nil }); err != nil {
				return err
			}
			if !health.Healthy(results) {
				return &exitError{code: exitFailed, err: errUnhealthy, quiet: true}
			}
			return nil
		},
	}
	command.Flags().DurationVar(&wait, "wait", 0, "repeat the checks for this `TIME` until all pass (5m)")
	addJSON(command, &asJSON, []checkRow{})
	return command
}

// checkPause is between two rounds of checks.
const checkPause = 2 * time.Second

func failed(results []health.Result) (n int) {
	for _, r := range results {
		if !r.Healthy {
			n++
		}
	}
	return n
}

func checkRows(results []health.Result) []checkRow {
	rows := []checkRow{}
	for _, r := range results {
		rows = append(rows, checkRow{r.Host, r.Check.Name, string(r.Check.Type), r.Check.Target(), string(r.Check.From), r.Healthy,
			float64(r.Took.Milliseconds()) / 1000, r.Reason})
	}
	return rows
}

func (a *app) checkTable(results []health.Result) string {
	if len(results) == 0 {
		return "no host has a check\n"
	}
	var cells [][]string
	hints := map[string]bool{}
	after := ""
	for _, r := range results {
		result := "passed"
		if !r.Healthy {
			result = "failed: " + r.Reason
		}
		cells = append(cells, []string{r.Host, diag.Printable(r.Check.Name), string(r.Check.Type), string(r.Check.From), fmt.Sprintf("%.2f s", r.Took.Seconds()), result})
		if r.Hint != "" && !hints[r.Hint] {
			hints[r.Hint] = true
			after += a.hints(a.stdout, "", r.Hint)
		}
	}
	return a.table([]string{"HOST", "CHECK", "TYPE", "FROM", "TIME", "RESULT"}, cells) + after
}
