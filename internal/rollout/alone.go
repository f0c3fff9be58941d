package rollout

// What a single run of Colmena does with the user's terminal: build, and deploy without gates.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k3splan/internal/colmena"
	"k3splan/internal/diag"
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
	c, err := d.openColmena(program, file, append(env, d.ssh.Env()...))
	if err != nil {
		return nil, errors.Join(err, lock())
	}
	if err := d.renew(ctx); err != nil {
		return nil, errors.Join(err, c.close(), lock())
	}
	if err := errors.Join(c.apply(d.request), c.close(), lock()); err != nil {
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

// Build renders the hive and has Colmena build the systems of the selected hosts. The hive stays.
func Build(environment Environment, request Request) error {
	unlock, err := LockProject(request.Project.Dir) // a deployment removes the hive when it is done
	if err != nil {
		return err
	}
	defer unlock()
	d := &deployment{environment: environment, request: request}
	file, program, err := d.prepareColmena()
	if err != nil {
		return err
	}
	c, err := d.openColmena(program, file, nil)
	if err != nil {
		return err
	}
	return errors.Join(c.run(colmena.Build(c.hive.File, selectionOf(request.Selected, request.Every), request.Args)), c.close())
}

// atTerminal is Colmena with the user's terminal.
type atTerminal struct {
	environment Environment
	program     string
	hive        *colmena.Hive
	env         []string
	close       func() error
}

func (d *deployment) openColmena(program, hiveFile string, env []string) (*atTerminal, error) {
	open := colmena.OpenHive
	if users := d.users(); len(users) > 0 {
		open = func(file string) (*colmena.Hive, error) { return colmena.PrivateHive(file, users) }
	}
	opened, err := open(hiveFile)
	if err != nil {
		return nil, err
	}
	return &atTerminal{d.environment, program, opened, slices.Concat(opened.Env, env), opened.Close}, nil
}

func (c *atTerminal) run(args []string) error {
	// its own context: Colmena gets the user's signals, and is waited for
	return run.Run(context.Background(), run.Command{
		Program: c.program, Args: args, Env: c.env,
		Stdin: c.environment.Stdin, Stdout: c.environment.Stdout, Stderr: c.environment.Stderr,
	})
}

// apply deploys by ssh, and then to the deploying machine itself if it is among the hosts.
func (c *atTerminal) apply(request Request) error {
	isLocal := func(h *plan.Host) bool { return h.Target.Local }
	others := slices.DeleteFunc(slices.Clone(request.Selected), isLocal)
	if len(others) > 0 {
		all := request.Every && len(others) == len(request.Selected)
		if err := c.run(colmena.Apply(c.hive.File, selectionOf(others, all), request.Args)); err != nil {
			return err
		}
	}
	for _, host := range request.Selected {
		if !isLocal(host) {
			continue
		}
		if err := c.run(colmena.ApplyLocal(c.hive.File, host.Name, request.Args)); err != nil {
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
