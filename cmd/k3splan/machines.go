package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/k3s"
	"k3splan/internal/lease"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

// machines are those of a project, for commands that connect to them.
type machines struct {
	app  *app
	dir  string
	plan *plan.Plan
	keys remote.HostKeys
	// problems are those of the tables. They may be wrong elsewhere: a machine in trouble is to be
	// reached all the same.
	problems diag.Problems
}

func (a *app) machines() (*machines, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	w, err := a.workspace()
	if err != nil {
		return nil, err
	}
	m := &machines{app: a, dir: dir}
	m.plan, m.problems = w.Plan()
	var problems diag.Problems
	m.keys, problems = w.HostKeys()
	if problems.Errors() > 0 {
		a.printProblems(a.stderr, problems)
	}
	return m, nil
}

// valid refuses a plan with errors, for commands that change something or contact a machine.
func (m *machines) valid() error {
	if m.problems.Errors() == 0 {
		return nil
	}
	m.app.printProblems(m.app.stderr, m.problems)
	return invalid()
}

// vault opens the project's secrets; a passphrase is asked on the terminal. A plan with errors may have
// them elsewhere, so that one is refused.
func (m *machines) vault() (*secrets.Vault, error) {
	if err := m.valid(); err != nil {
		return nil, err
	}
	_, vault, err := m.app.vault(m.app.asker())
	return vault, err
}

// host finds a host of the plan by its name.
func (m *machines) host(name string) (*plan.Host, error) {
	if host := m.plan.Host(strings.ToLower(name)); host != nil {
		return host, nil
	}
	if m.problems.Errors() > 0 {
		m.app.printProblems(m.app.stderr, m.problems)
	}
	return nil, unknownHost(m.plan, name)
}

// hosts resolves names, tags and patterns; none mean all hosts.
func (m *machines) hosts(patterns []string) ([]*plan.Host, error) {
	if len(patterns) == 0 {
		return m.plan.Hosts, m.valid()
	}
	return selectHosts(m.plan, patterns)
}

// servers finds a k3s server by its own name or its host's; "" means all, the init server first.
func (m *machines) servers(name string) ([]*plan.Container, error) {
	servers := k3s.Servers(m.plan)
	if len(servers) == 0 {
		return nil, &exitError{code: exitInvalid, err: errors.New("the plan has no k3s server"), hint: m.plan.Tables.K3s + " lists them"}
	}
	if name == "" {
		return servers, nil
	}
	for _, server := range servers {
		if name := strings.ToLower(name); name == server.Name || name == server.Host.Name {
			return []*plan.Container{server}, nil
		}
	}
	return nil, usageError(plan.Unknown("server", name, plan.Names(m.plan.Servers()), ""))
}

// prepare writes ssh's configuration for the machines. The caller closes it.
func (m *machines) prepare(hosts ...*plan.Host) (*remote.Config, error) {
	if err := refuseUnknown(hosts, m.keys); err != nil {
		return nil, err
	}
	return remote.Prepare(m.dir, m.plan, m.keys)
}

// runner returns a function that runs commands as root on hosts, at least one of which must be known by
// its key. The caller calls done afterwards.
func (m *machines) runner(hosts []*plan.Host) (run k3s.HostRunner, done func() error, err error) {
	known := func(h *plan.Host) bool { return remote.CheckKnown([]*plan.Host{h}, m.keys) == nil }
	if !slices.ContainsFunc(hosts, known) {
		return nil, nil, refuseUnknown(hosts, m.keys)
	}
	ssh, err := remote.Prepare(m.dir, m.plan, m.keys)
	if err != nil {
		return nil, nil, err
	}
	return m.runBy(ssh), ssh.Close, nil
}

// runBy runs commands as root on hosts whose keys are known.
func (m *machines) runBy(ssh *remote.Config) k3s.HostRunner {
	return func(ctx context.Context, host *plan.Host, stdin string, command ...string) (string, error) {
		if err := remote.CheckKnown([]*plan.Host{host}, m.keys); err != nil {
			return "", err
		}
		return ssh.Machine(host, remote.DeployUser).Run(ctx, stdin, command...)
	}
}

// lease takes the lease on the rack. The caller releases it. Hosts whose keys are unknown count as silent.
func (m *machines) lease(ctx context.Context, ssh *remote.Config, purpose string) (*lease.Lease, error) {
	var hosts []lease.Host
	for _, host := range lease.ServerHosts(m.plan) {
		hosts = append(hosts, lease.Host{Name: host.Name, Script: func(ctx context.Context, script string, words ...string) (string, error) {
			if err := remote.CheckKnown([]*plan.Host{host}, m.keys); err != nil {
				return "", err
			}
			return ssh.Machine(host, remote.DeployUser).Script(ctx, script, words...)
		}})
	}
	held, err := lease.Take(ctx, lease.Request{Hosts: hosts, Dir: m.dir, Purpose: purpose})
	if err != nil {
		return nil, err
	}
	if warning := held.Warning(); warning != "" {
		m.app.warn("%s", warning)
	}
	return held, nil
}

// serverWork is what commands work with that change something on the servers.
type serverWork struct {
	*machines
	ssh     *remote.Config
	secrets *secrets.Vault
	// servers are those that were asked for, the init server first.
	servers []*plan.Container
}

// withServers calls use for a server, or for all with "", while it holds the project's lock: a deployment at the
// same time would bring the old token, half of a new one, or a server that is to stay stopped. The keys of the
// servers' hosts must be known.
func (a *app) withServers(name string, use func(context.Context, serverWork) error) (err error) {
	w := serverWork{}
	if w.machines, err = a.machines(); err != nil {
		return err
	}
	if err := w.valid(); err != nil {
		return err
	}
	if w.servers, err = w.machines.servers(name); err != nil {
		return err
	}
	if w.secrets, err = w.vault(); err != nil {
		return err
	}
	unlock, err := rollout.LockProject(w.dir)
	if err != nil {
		return err
	}
	defer unlock()
	var hosts []*plan.Host
	for _, s := range w.servers {
		hosts = append(hosts, s.Host)
	}
	if w.ssh, err = w.prepare(hosts...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.ssh.Close()) }()
	if err := w.ssh.Share(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	return use(ctx, w)
}

// refuseUnknown refuses hosts whose keys are unknown, before anything is done.
func refuseUnknown(hosts []*plan.Host, keys remote.HostKeys) error {
	if err := remote.CheckKnown(hosts, keys); err != nil {
		return usageError(err)
	}
	return nil
}
