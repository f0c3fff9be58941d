package main

import (
	"errors"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
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

// vault opens the project's secrets; a passphrase is asked on the terminal.
func (m *machines) vault() (*secrets.Vault, error) {
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
		if m.problems.Errors() > 0 {
			m.app.printProblems(m.app.stderr, m.problems)
			return nil, invalid()
		}
		return m.plan.Hosts, nil
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

// prepare lets ssh know the machines. What it gives is to be closed.
func (m *machines) prepare(hosts ...*plan.Host) (*remote.Config, error) {
	if err := refuseUnknown(hosts, m.keys); err != nil {
		return nil, err
	}
	return remote.Prepare(m.dir, m.plan, m.keys)
}

// refuseUnknown refuses hosts that nobody could tell from impostors: nothing was done yet.
func refuseUnknown(hosts []*plan.Host, keys remote.HostKeys) error {
	if err := remote.CheckKnown(hosts, keys); err != nil {
		return usageError(err)
	}
	return nil
}
