package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/rollout"
	"k3splan/internal/schedule"
	"k3splan/internal/text"
)

// machineRow is what a host says about itself, for --json.
type machineRow struct {
	Name        string   `json:"name"`
	Role        string   `json:"role"`
	Groups      []string `json:"groups"`
	RebootOrder int      `json:"reboot_order"`
	DependsOn   []string `json:"depends_on"`
	Strategy    string   `json:"strategy"`
	// RebootDelay is in seconds.
	RebootDelay int           `json:"reboot_delay"`
	Criticality string        `json:"criticality"`
	Checks      []machineTest `json:"checks"`
}

// machineTest is a health check.
type machineTest struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Target string `json:"target"`
	// Timeout is in seconds.
	Timeout int    `json:"timeout"`
	From    string `json:"from"`
}

func (a *app) machinesCommand() *cobra.Command {
	var asJSON bool
	var group string
	command := &cobra.Command{
		Use:   "machines [HOST…]",
		Short: "Show roles, groups, order and dependencies of hosts",
		Long: `Lists what the hosts say to those who deploy, reboot and check them, and the number of their checks:
k3splan.machine in the NixOS configuration, whose defaults are the columns of plans/hosts.csv from role
on and plans/checks.csv. Hosts that have changed are evaluated, the others are remembered; no host is
contacted. A HOST may be a pattern or @TAG; !HOST leaves hosts out.`,
		Example:           "  k3splan machines\n  k3splan machines '@storage' --json",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			p, machines, hosts, err := a.hostMachines(args)
			if err != nil {
				return err
			}
			if hosts, err = inGroup(p.Plan, machines, hosts, group); err != nil {
				return err
			}
			rows := []machineRow{}
			for _, host := range hosts {
				rows = append(rows, machineRowOf(host.Name, machines[host.Name]))
			}
			return a.print(asJSON, rows, func() (string, error) { return a.machineTable(rows), nil })
		},
	}
	command.Flags().StringVar(&group, "group", "", "only hosts of this `GROUP`")
	_ = command.RegisterFlagCompletionFunc("group", a.completeValues(func(h *plan.Host) []string { return h.Machine.Groups }))
	addJSON(command, &asJSON, []machineRow{})
	return command
}

// inGroup returns the hosts of a group; without one ("") all of them.
func inGroup(p *plan.Plan, machines map[string]plan.Machine, hosts []*plan.Host, group string) ([]*plan.Host, error) {
	if group == "" {
		return hosts, nil
	}
	group = strings.ToLower(group)
	var known []string
	for _, host := range p.Hosts {
		known = append(known, machines[host.Name].Groups...)
	}
	slices.Sort(known)
	if known = slices.Compact(known); !slices.Contains(known, group) {
		return nil, usageError(plan.Unknown("group", group, known, ""))
	}
	return slices.DeleteFunc(hosts, func(h *plan.Host) bool { return !slices.Contains(machines[h.Name].Groups, group) }), nil
}

func machineRowOf(name string, m plan.Machine) machineRow {
	row := machineRow{
		Name: name, Role: m.Role, Groups: text.OrEmpty(m.Groups), RebootOrder: m.RebootOrder, DependsOn: text.OrEmpty(m.Dependencies),
		Strategy: string(m.Orchestration.Strategy), RebootDelay: m.Orchestration.RebootDelay, Criticality: string(m.Orchestration.Criticality),
		Checks: []machineTest{},
	}
	for _, c := range m.HealthChecks {
		row.Checks = append(row.Checks, machineTest{c.Name, string(c.Type), c.Target(), c.Timeout, string(c.From)})
	}
	return row
}

func (a *app) machineTable(rows []machineRow) string {
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{r.Name, r.Role, strings.Join(r.Groups, " "), strconv.Itoa(r.RebootOrder), strings.Join(r.DependsOn, " "),
			r.Strategy, r.Criticality, strconv.Itoa(len(r.Checks))})
	}
	return a.table([]string{"HOST", "ROLE", "GROUPS", "ORDER", "DEPENDS ON", "STRATEGY", "CRITICALITY", "CHECKS"}, cells)
}

// hostMachines returns a valid project, what its hosts say about themselves, by name, as NixOS evaluates it or as the
// tables say where nothing can be evaluated, and the hosts that are selected. What is wrong with the selection is said
// before anything is evaluated.
func (a *app) hostMachines(patterns []string) (*project.Project, map[string]plan.Machine, []*plan.Host, error) {
	p, err := a.validProject()
	if err != nil {
		return nil, nil, nil, err
	}
	selected, err := selectHosts(p.Plan, patterns)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := interruptible()
	defer stop()
	environment := a.environment(p)
	// what Nix says while it looks for Colmena does not matter: without one the tables say something, too
	environment.Colmena = func(hiveFile string) (string, error) {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		defer null.Close()
		return rollout.FindColmena(hiveFile, null)
	}
	machines, err := rollout.Machines(ctx, environment, p, func(done, all int) {
		if done == 0 {
			a.say("evaluating %s", text.Count(all, "host"))
		}
	})
	var not *rollout.NotEvaluatedError
	if errors.As(err, &not) {
		a.warn("the values are those of the tables; what snippets set is unknown: %v", not.Err)
		machines, err = make(map[string]plan.Machine, len(p.Plan.Hosts)), nil
		for _, host := range p.Plan.Hosts {
			machines[host.Name] = host.Machine
		}
	}
	return p, machines, selected, err
}

// sequenceStep is a step of a sequence, for --json.
type sequenceStep struct {
	// Step counts from 1.
	Step  int      `json:"step"`
	Hosts []string `json:"hosts"`
	// After are the steps that have to be done before.
	After []int `json:"after"`
	// Delay is waited before the step, in seconds.
	Delay  int    `json:"delay"`
	Reason string `json:"reason"`
}

func (a *app) sequenceCommand() *cobra.Command {
	var asJSON bool
	var format string
	command := &cobra.Command{
		Use:   "sequence [HOST…]",
		Short: "Show the order in which hosts reboot",
		Long: `Shows the steps in which all hosts, or those that are named, reboot: hosts that may go together, how
long is waited before, and why the step is where it is. Hosts with a lower reboot_order come first; a
host comes after those on which it depends, also by others; no two servers, and no server and an agent,
go together, and of a group, and of the hosts with agents, one at a time. Ties are broken by name. No
host is contacted: a server that is down would come before all others.

With --format plain, each line is HOST:DELAY, in the order of the reboots, for scripts.`,
		Example:           "  k3splan sequence\n  k3splan sequence '@storage' --json\n  k3splan sequence --format plain",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			switch {
			case format != "table" && format != "plain":
				return usageError(fmt.Errorf("unknown format %q: table or plain", format))
			case asJSON && command.Flags().Changed("format"):
				return usageError(errors.New("--json and --format cannot be used together"))
			}
			p, machines, hosts, err := a.hostMachines(args)
			if err != nil {
				return err
			}
			steps, err := rollout.Sequence(p.Plan, machines, hosts, nil, rollout.Limits{Unavailable: 1, Parallel: parallelByDefault()})
			if err != nil {
				return usageError(err)
			}
			rows := sequenceOf(steps)
			return a.print(asJSON, rows, func() (string, error) {
				if format == "plain" {
					return plainSequence(steps), nil
				}
				return a.sequenceTable(rows), nil
			})
		},
	}
	command.Flags().StringVar(&format, "format", "table", "how to print it: `table|plain`")
	_ = command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "plain"}, nothingElse))
	addJSON(command, &asJSON, []sequenceStep{})
	return command
}

func sequenceOf(steps []schedule.Step) []sequenceStep {
	rows := make([]sequenceStep, len(steps))
	for i, s := range steps {
		rows[i] = sequenceStep{i + 1, s.Hosts, []int{}, s.Delay, string(s.Reason)}
		for _, before := range s.After {
			rows[i].After = append(rows[i].After, before+1)
		}
	}
	return rows
}

// plainSequence returns a line for each host; what goes together waits only once.
func plainSequence(steps []schedule.Step) string {
	var lines strings.Builder
	for _, s := range steps {
		delay := s.Delay
		for _, host := range s.Hosts {
			fmt.Fprintf(&lines, "%s:%d\n", host, delay)
			delay = 0
		}
	}
	return lines.String()
}

func (a *app) sequenceTable(rows []sequenceStep) string {
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{strconv.Itoa(r.Step), strings.Join(r.Hosts, " "), fmt.Sprintf("%d s", r.Delay), r.Reason})
	}
	return a.table([]string{"STEP", "HOSTS", "DELAY", "REASON"}, cells)
}
