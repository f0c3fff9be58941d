package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/plan"
	"k3splan/internal/rollout"
	"k3splan/internal/sshconf"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status [HOST…]",
		Short: "What the hosts run, and whether they are as the plan says",
		Long: `Asks all hosts, or those that are named, and shows for each whether it is up to date, which NixOS and
k3s it runs, whether it needs a reboot for its kernel, whether its server and its Node are ready, and
when it was deployed last. A HOST may be a pattern or @TAG.

The exit code is 1 if a host is not well: it does not answer, was never deployed, runs a system that
was not deployed, has failed units, or its server or Node is not ready. That the plan has changed for
it is no illness.`,
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
				if !row.Well {
					return &exitError{code: exitFailed, err: errNotWell, quiet: true}
				}
			}
			return nil
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print a list of hosts as JSON")
	return command
}

var errNotWell = fmt.Errorf("not all hosts are well")

// hostState says how a host is.
type hostState string

const (
	stateUnreachable hostState = "unreachable"
	stateNew         hostState = "never deployed"
	stateForeign     hostState = "foreign system"
	stateChanged     hostState = "changed"
	stateCurrent     hostState = "up to date"
)

// hostStatus is one row of status.
type hostStatus struct {
	Host  string    `json:"host"`
	Well  bool      `json:"well"`
	State hostState `json:"state"`
	// Reasons say why the state is not "up to date".
	Reasons []string `json:"reasons"`
	NixOS   string   `json:"nixos"`
	// Generation is that of the system profile; 0 is unknown.
	Generation   int      `json:"generation"`
	RebootNeeded bool     `json:"rebootNeeded"`
	FailedUnits  []string `json:"failedUnits"`
	// Server and Node are "ready" or say what is missing; empty where there is none.
	Server       string `json:"server"`
	ServerK3s    string `json:"serverK3s"`
	Node         string `json:"node"`
	NodeK3s      string `json:"nodeK3s"`
	Deployed     string `json:"deployed"`
	deployedTime time.Time
}

func (a *app) status(patterns []string) ([]hostStatus, error) {
	p, err := a.load()
	if err != nil {
		return nil, err
	}
	selected := p.Plan.Hosts
	if len(patterns) > 0 {
		if selected, err = selectHosts(p.Plan, patterns); err != nil {
			return nil, err
		}
	}
	ctx, stop := interruptible()
	defer stop()
	ssh, err := sshconf.Prepare(p.Dir, p.Plan, p.HostKeys)
	if err != nil {
		return nil, err
	}
	defer ssh.Close()
	machine := func(h *plan.Host) sshconf.Machine { return ssh.Machine(h, sshconf.DeployUser) }
	s, err := a.survey(ctx, p, selected, machine, false)
	if err != nil {
		return nil, err
	}
	s.askServers(ctx, machine)
	nodes, nodesMissing := s.askNodes(ctx, machine)
	rows := make([]hostStatus, len(selected))
	for i, host := range selected {
		rows[i] = s.row(host, nodes, nodesMissing)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return rows, nil
}

// askNodes asks the first server that answers; missing says why none did.
func (s *rackState) askNodes(ctx context.Context, machine func(*plan.Host) sshconf.Machine) (nodes map[string]rollout.Node, missing string) {
	missing = "no server answers"
	for _, server := range s.project.Plan.Servers() {
		if !s.situation.Health[server.Host.Name].Ready {
			continue
		}
		inner, cancel := context.WithTimeout(ctx, 2*askTimeout)
		nodes, err := rollout.AskNodes(inner, machine(server.Host), server.Name)
		cancel()
		if err == nil {
			return nodes, ""
		}
		missing = err.Error()
	}
	return nil, missing
}

func (s *rackState) row(host *plan.Host, nodes map[string]rollout.Node, nodesMissing string) hostStatus {
	o, work := s.situation.Observed[host.Name], s.situation.Work[host.Name]
	row := hostStatus{
		Host: host.Name, NixOS: o.NixOS, Generation: o.Generation, RebootNeeded: o.RebootNeeded,
		FailedUnits: orNone(o.Failed), Reasons: orNone(work.Reasons),
	}
	switch {
	case o.Unreachable != "":
		row.State, row.Reasons = stateUnreachable, []string{o.Unreachable}
	case o.Receipt == nil:
		row.State = stateNew
	case o.Receipt.System != o.System:
		row.State = stateForeign
	case !work.None():
		row.State = stateChanged
	default:
		row.State = stateCurrent
	}
	if o.Receipt != nil {
		row.deployedTime = o.Receipt.Time
		row.Deployed = o.Receipt.Time.Format(time.RFC3339)
	}
	row.Well = (row.State == stateChanged || row.State == stateCurrent) && len(o.Failed) == 0
	if host.Server != nil {
		health, asked := s.situation.Health[host.Name]
		row.Server, row.ServerK3s = "ready", health.Version
		if !health.Ready {
			row.Well, row.Server, row.ServerK3s = false, health.Why, ""
			switch {
			case o.Unreachable != "":
				row.Server = "unknown"
			case !asked:
				row.Server = "not deployed"
			}
		}
	}
	if host.Agent != nil {
		node, there := nodes[host.Agent.Name]
		row.Node, row.NodeK3s = "ready", node.Version
		switch {
		case nodesMissing != "":
			row.Node = "unknown"
		case !there:
			row.Node = "not registered"
		case !node.Ready:
			row.Node = node.Why
		}
		row.Well = row.Well && row.Node == "ready"
	}
	return row
}

func (a *app) showStatus(rows []hostStatus) error {
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tSTATE\tNIXOS\tGENERATION\tSERVER\tNODE\tREBOOT\tDEPLOYED")
	for _, row := range rows {
		generation, reboot, deployed := "", "", ""
		if row.Generation > 0 {
			generation = fmt.Sprint(row.Generation)
		}
		if row.RebootNeeded {
			reboot = "needed"
		}
		if !row.deployedTime.IsZero() {
			deployed = row.deployedTime.Local().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Host, row.State, row.NixOS, generation,
			cell(row.Server, row.ServerK3s), cell(row.Node, row.NodeK3s), reboot, deployed)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	// what holds for several hosts is told once
	var reasons []string
	hosts := map[string][]string{}
	for _, row := range rows {
		for _, reason := range row.Reasons {
			if hosts[reason] == nil {
				reasons = append(reasons, reason)
			}
			hosts[reason] = append(hosts[reason], row.Host)
		}
	}
	for _, reason := range reasons {
		fmt.Fprintf(a.stdout, "%s: %s\n", strings.Join(hosts[reason], " "), reason)
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

// cell keeps the table narrow: what is missing stands below it.
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
