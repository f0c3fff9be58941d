package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [HOST…]",
		Short: "Show what the hosts run, and whether it is what the plan says",
		Long: `Asks all hosts, or those that are named, and shows for each whether it is up to date, which NixOS and
k3s it runs, whether it needs a reboot and for what, whether its server and its Node are ready, and
when it was deployed last. A HOST may be a pattern or @TAG; !HOST leaves hosts out.

The exit code is 1 if a host is unhealthy: it does not answer, was never deployed, runs a system that
was not deployed, has failed units, or its server or Node is not ready. Pending plan changes do not
make a host unhealthy.`,
		Example:           "  k3splan status\n  k3splan status '@k3s-server' --json",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := a.status(args)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.stdout, rows)
			} else {
				err = a.showStatus(rows)
			}
			if err != nil {
				return err
			}
			for _, row := range rows {
				if !row.Healthy {
					return &exitError{code: exitFailed, err: errUnhealthy, quiet: true}
				}
			}
			return nil
		},
	}
	addJSON(command, &asJSON, []rollout.HostStatus{})
	return command
}

var errUnhealthy = fmt.Errorf("not all hosts are healthy")

func (a *app) status(patterns []string) ([]rollout.HostStatus, error) {
	p, err := a.validProject()
	if err != nil {
		return nil, err
	}
	selected, err := selectHosts(p.Plan, patterns)
	if err != nil {
		return nil, err
	}
	ctx, stop := interruptible()
	defer stop()
	ssh, err := remote.Prepare(p.Dir, p.Plan, p.HostKeys)
	if err != nil {
		return nil, err
	}
	defer ssh.Close()
	rack, err := rollout.NewRack(ctx, a.environment(p), p, selected, ssh.Machines(remote.DeployUser))
	if err != nil {
		return nil, err
	}
	if err := rack.Survey(ctx); err != nil {
		return nil, err
	}
	return rack.Status(ctx)
}

func (a *app) showStatus(answers []rollout.HostStatus) error {
	rows := make([]rollout.HostStatus, len(answers))
	for i, row := range answers {
		rows[i] = printableStatus(row)
	}
	var table [][]string
	for _, row := range rows {
		generation, reboot, deployed := "", "", ""
		if row.Generation > 0 {
			generation = fmt.Sprint(row.Generation)
		}
		if row.RebootNeeded {
			reboot = "needed: " + strings.Join(row.RebootFor, ", ")
		}
		if !row.DeployedAt.IsZero() {
			deployed = row.DeployedAt.Local().Format("2006-01-02 15:04")
		}
		table = append(table, []string{row.Host, string(row.State), cell(row.Server, row.ServerK3s), cell(row.Node, row.NodeK3s),
			row.NixOS, reboot, deployed, generation})
	}
	if _, err := io.WriteString(a.stdout, a.table([]string{"HOST", "STATE", "SERVER", "NODE", "NIXOS", "REBOOT", "DEPLOYED", "GENERATION"}, table)); err != nil {
		return err
	}
	// a reason that several hosts have in common is printed once
	type cause struct{ reason, hint string }
	var causes []cause
	hosts := map[cause][]string{}
	for _, row := range rows {
		for _, reason := range row.Reasons {
			c := cause{reason, row.Hint}
			if hosts[c] == nil {
				causes = append(causes, c)
			}
			hosts[c] = append(hosts[c], row.Host)
		}
	}
	for _, c := range causes {
		fmt.Fprintf(a.stdout, "%s: %s\n%s", strings.Join(hosts[c], " "), c.reason, a.hints(a.stdout, "  ", c.hint))
	}
	for _, row := range rows {
		if len(row.FailedUnits) > 0 {
			fmt.Fprintf(a.stdout, "%s: failed units: %s\n", row.Host, strings.Join(row.FailedUnits, " "))
		}
		for _, part := range [][2]string{{"server", row.Server}, {"Node", row.Node}} {
			if part[1] != "" && part[1] != "ready" && part[1] != "unknown" {
				fmt.Fprintf(a.stdout, "%s: %s: %s\n", row.Host, part[0], part[1])
			}
		}
	}
	return nil
}

// printableStatus returns what a host answered fit for a terminal.
func printableStatus(row rollout.HostStatus) rollout.HostStatus {
	for _, text := range []*string{&row.NixOS, &row.Server, &row.ServerK3s, &row.Node, &row.NodeK3s} {
		*text = diag.Printable(*text)
	}
	row.Reasons, row.FailedUnits, row.RebootFor = printableAll(row.Reasons), printableAll(row.FailedUnits), printableAll(row.RebootFor)
	return row
}

func printableAll(texts []string) []string {
	printable := make([]string, len(texts))
	for i, text := range texts {
		printable[i] = diag.Printable(text)
	}
	return printable
}

// cell keeps the table narrow: what is missing is shown below it.
func cell(state, version string) string {
	switch {
	case state == "":
		return "-"
	case strings.HasPrefix(state, "unknown"):
		return "unknown"
	case state != "ready":
		return "not ready"
	case version != "":
		return version
	}
	return state
}
