package rollout

// What a single run of Colmena does with the user's terminal: build, and deploy without gates.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/evaluate"
	"k3splan/internal/plan"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

// byColmenaAlone leaves the hosts to Colmena: once for all of them, without gates and receipts. What has an
// effect on them, at once or when they start again, is judged before like any other deployment, unless the
// user forces it: then the servers' hosts are asked for the lease alone.
func (d *deployment) byColmenaAlone(ctx context.Context, goal string) (*Outcome, error) {
	switch {
	case d.request.DryRun && !colmena.ChangesHosts(goal):
		return nil, fmt.Errorf("--dry-run shows what would change on the hosts, and Colmena's goal %s changes nothing", goal)
	case d.request.DryRun || colmena.ChangesHosts(goal) && !d.request.Force:
		d.request.All = true // Colmena compares nothing
		proposal, err := d.propose(ctx, goal, true)
		if err != nil {
			return nil, err
		}
		if colmena.IsActivated(goal) {
			proposal.Problems = append(d.withoutGates(proposal), proposal.Problems...)
		}
		if d.request.DryRun {
			return &Outcome{Proposal: proposal}, unknownChanges(proposal)
		}
		if len(proposal.Unreachable()) == len(proposal.Selected) {
			return nil, unknownChanges(proposal)
		}
		d.view.Propose(Proposal{Selected: proposal.Selected, Observed: proposal.Observed, Problems: proposal.Problems})
		if err := d.consent(ctx, proposal.Problems); err != nil {
			return nil, err
		}
		if err := d.rememberAttempts(ctx); err != nil {
			return nil, err
		}
	case colmena.ChangesHosts(goal): // a forced deployment is not judged, but keeps out of another operator's way
		machine, err := d.machines(ctx)
		if err != nil {
			return nil, err
		}
		if err := d.takeLease(ctx, machine, hasContainers(d.request.Selected)); err != nil {
			return nil, err
		}
		if init := d.request.Project.Plan.InitServer(); init != nil && slices.Contains(d.request.Selected, init.Host) {
			_, _ = machine(init.Host).Script(ctx, letFoundScript) // without it, the machine itself may refuse
		}
	}
	file, program, err := d.prepareColmena()
	if err != nil {
		return nil, err
	}
	env, lock, err := d.environment.Unlock(d.request.Selected)
	if err != nil {
		return nil, err
	}
	defer lock()
	c, err := d.openColmena(ctx, program, file, append(env, d.ssh.Env()...))
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return nil, err
	}
	if err := d.renew(ctx); err != nil {
		return nil, err
	}
	if err := c.apply(d.request); err != nil {
		return nil, err
	}
	return nil, d.removeHive()
}

// rememberAttempts is for hosts that get other secrets than their receipts have, and no receipt afterwards.
func (d *deployment) rememberAttempts(ctx context.Context) error {
	for _, host := range d.request.Selected {
		if len(d.rack.Work[host.Name].Secrets) == 0 {
			continue
		}
		if err := rememberAttempt(ctx, d.rack.Machine(host), d.rack.Secrets[host.Name]); err != nil {
			return fmt.Errorf("preparing %s: %s", host.Name, reason(err))
		}
	}
	return nil
}

// withoutGates returns what speaks against restarting several servers without waiting for each.
func (d *deployment) withoutGates(p Proposal) diag.Problems {
	var servers []string
	for _, host := range p.Selected {
		if p.Observed[host.Name].Unreachable == "" && (host.Server != nil || p.Work[host.Name].Server) {
			servers = append(servers, host.Name)
		}
	}
	if len(servers) < 2 {
		return nil
	}
	problem := diag.Problem{Severity: diag.Warning, Code: "no-gates",
		Message: "the servers on " + text.Enumerate(servers) + " restart one right after the other: etcd loses its quorum if one is not back before the next",
		Hint:    "without --no-gates, k3splan waits until each of them is healthy"}
	if n, isSet := colmena.Parallel(d.request.Args); isSet && n != "1" {
		problem.Severity, problem.Message = diag.Error, "the servers on "+text.Enumerate(servers)+" restart at the same time: etcd loses its quorum"
	}
	return diag.Problems{problem}
}

// Built is a host whose system is built.
type Built struct {
	Host string `json:"host"`
	// System is its store path; the system may be on the host alone (deployment.buildOnTarget).
	System string `json:"system"`
}

// Build renders the hive and builds the systems of the selected hosts: those that can be, also if others cannot. With
// arguments of the user's for Colmena, or where Colmena evaluates by itself, Colmena builds them, and the result is
// nil. The hive stays.
func Build(ctx context.Context, environment Environment, user ask.User, request Request) ([]Built, error) {
	unlock, err := LockProject(request.Project.Dir) // a deployment removes the hive when it is done
	if err != nil {
		return nil, err
	}
	defer unlock()
	d := &deployment{environment: environment, view: noProposals{user}, request: request, started: time.Now()}
	file, program, err := d.prepareColmena()
	if err != nil {
		return nil, err
	}
	c, err := d.openColmena(ctx, program, file, nil)
	if c != nil {
		defer c.close()
	}
	if ctx.Err() != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	if c == nil {
		return nil, err
	}
	return c.build(ctx, user, request, err)
}

// noProposals is a user who is shown no deployment.
type noProposals struct{ ask.User }

func (noProposals) Propose(Proposal) {}

func (noProposals) Preview(map[string]Preview) {}

// build builds the selected hosts. failed is why some could not be evaluated.
func (c *atTerminal) build(ctx context.Context, user ask.User, request Request, failed error) (built []Built, err error) {
	selected := slices.Clone(request.Selected)
	if len(c.hosts) > 0 {
		selected = slices.DeleteFunc(selected, func(h *plan.Host) bool { return c.hosts[h.Name] == nil })
	}
	hosts := namesOf(selected)
	switch {
	case failed != nil && len(c.hosts) == 0:
		return nil, failed
	case len(c.hosts) == 0 || len(request.Args) > 0:
		all := request.Every && failed == nil && c.hive(hosts...) == c.real
		hive := c.hive(hosts...)
		return nil, errors.Join(failed, c.run(hive, colmena.Build(hive.File, selectionOf(selected, all), request.Args)))
	}
	progress := user.Progress(len(hosts))
	defer progress.Stop()
	err = c.systems.build(ctx, hosts, progress, func(hive *colmena.Hive, args []string, _ func(line string)) error {
		progress.Stop()
		return c.run(hive, args)
	})
	missing := []string{}
	if incomplete := (*evaluate.BuildError)(nil); errors.As(err, &incomplete) {
		missing = incomplete.Hosts
	} else if err != nil {
		return nil, errors.Join(failed, err)
	}
	for _, name := range hosts {
		if !slices.Contains(missing, name) {
			built = append(built, Built{name, c.hosts[name].System})
		}
	}
	if failed = errors.Join(failed, err); failed != nil {
		failed = fmt.Errorf("%w\n  log: %s", failed, c.logs)
	}
	return built, failed
}

// atTerminal is Colmena with the user's terminal.
type atTerminal struct {
	*systems
	environment Environment
}

// openColmena evaluates the selected hosts for Colmena. What it returns is not nil if some of them can be deployed or
// built all the same.
func (d *deployment) openColmena(ctx context.Context, program, hiveFile string, env []string) (*atTerminal, error) {
	names := namesOf(d.request.Selected)
	inputs, err := inputsOf(d.request.Project, d.environment.Templates)
	if err != nil {
		return nil, err
	}
	logs, err := d.logFolder()
	if err != nil {
		return nil, err
	}
	progress := d.view.Progress(len(names))
	defer progress.Stop()
	s, err := d.openSystems(ctx, evaluation{hiveFile: hiveFile, program: program, names: names, inputs: inputs, users: d.users(), env: env, logs: logs}, progress)
	if s == nil {
		return nil, err
	}
	return &atTerminal{s, d.environment}, err
}

func (c *atTerminal) run(hive *colmena.Hive, args []string) error {
	// its own context: Colmena gets the user's signals, and is waited for
	return run.Run(context.Background(), run.Command{
		Program: c.program, Args: args, Env: slices.Concat(hive.Env, c.env),
		Stdin: c.environment.Stdin, Stdout: c.environment.Stdout, Stderr: c.environment.Stderr,
	})
}

// apply deploys by ssh, and then to the deploying machine itself if it is among the hosts.
func (c *atTerminal) apply(request Request) error {
	isLocal := func(h *plan.Host) bool { return h.Target.Local }
	others := slices.DeleteFunc(slices.Clone(request.Selected), isLocal)
	if len(others) > 0 {
		hive := c.hive(namesOf(others)...)
		all := request.Every && len(others) == len(request.Selected) && hive == c.real
		if err := c.run(hive, colmena.Apply(hive.File, selectionOf(others, all), request.Args)); err != nil {
			return err
		}
	}
	for _, host := range request.Selected {
		if !isLocal(host) {
			continue
		}
		hive := c.hive(host.Name)
		if err := c.run(hive, colmena.ApplyLocal(hive.File, host.Name, request.Args)); err != nil {
			return err
		}
	}
	return nil
}

func selectionOf(hosts []*plan.Host, all bool) colmena.Selection {
	selection := colmena.Selection{All: all}
	for _, host := range hosts {
		selection.Hosts = append(selection.Hosts, host.Name)
		if host.Server != nil {
			selection.Servers++
		}
	}
	return selection
}

// FindColmena returns the Colmena to run with a rendered hive; what Nix says while it fetches or builds
// one goes to stderr.
func FindColmena(hiveFile string, stderr *os.File) (program string, err error) {
	program, err = colmena.Find(context.Background(), filepath.Join(filepath.Dir(hiveFile), "sources.nix"), stderr)
	if missing := (*run.MissingError)(nil); errors.As(err, &missing) {
		err = fmt.Errorf("%w; the hive is rendered at %s", err, hiveFile)
	}
	return program, err
}
