package rollout

import (
	"context"
	"fmt"
	"slices"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// Look asks the hosts of all servers of a plan, and these hosts, what they run, and the servers how they
// are. Nothing is compared with the plan, so no secret is read.
func Look(ctx context.Context, p *plan.Plan, machine func(*plan.Host) remote.Machine, hosts ...*plan.Host) (Situation, error) {
	for _, server := range p.Servers() {
		if !slices.Contains(hosts, server.Host) {
			hosts = append(hosts, server.Host)
		}
	}
	if err := needSSH(hosts); err != nil {
		return Situation{}, err
	}
	s := Situation{Plan: p, Observed: askHosts(ctx, p, hosts, bySSH(machine))}
	// if the receipts cannot be read, etcd's members are known all the same
	s.Deployed, _ = NewPast(p).Deployed(s.Observed)
	s.Health = askServers(ctx, s, bySSH(machine))
	if ctx.Err() != nil {
		return Situation{}, context.Cause(ctx)
	}
	return s, nil
}

// Leave is what becomes of the cluster if a server leaves it.
type Leave struct {
	// Member reports whether the server is a member of etcd, as far as is known.
	Member bool
	// Runs reports whether it is a healthy voter.
	Runs bool
	// Last reports whether the plan has no other server: the cluster ends with it.
	Last bool
	// Helpers are the servers that can remove it from etcd, the healthy ones among the others.
	Helpers []*plan.Container
	// Problems are what speaks against it: Errors are refused, Warnings are questions.
	Problems diag.Problems
}

// Leave judges whether a server may leave etcd now: it is stopped, if it runs, and then removed by another
// one. As long as it is a member, it counts for the majority and cannot vote. So the others alone have to be
// one, before the removal as well as after it.
func (s Situation) Leave(server *plan.Container) Leave {
	l := Leave{Last: len(s.Plan.Servers()) == 1}
	for _, helper := range s.readyServers() {
		if helper.Name != server.Name {
			l.Helpers = append(l.Helpers, helper)
		}
	}
	report := func(severity diag.Severity, code, message, hint string) {
		file, line := place(server.Where("name"))
		l.Problems = append(l.Problems, diag.Problem{File: file, Line: line, Severity: severity, Code: code, Message: message, Hint: hint})
	}
	voters, healthy, votes := 0, 0, false // healthy are the others
	var down []member                     // others, learners included
	for _, m := range s.members() {
		if !m.learner {
			voters++
		}
		switch {
		case m.server == server.Name:
			l.Member = true
			l.Runs = l.Runs || m.ready
			votes = votes || !m.learner
		case !m.ready:
			down = append(down, m)
		case !m.learner:
			healthy++
		}
	}
	needed, spare := plan.Quorum(voters)
	_, left := plan.Quorum(voters - 1)
	switch {
	case l.Last:
		report(diag.Warning, "cluster-ends", fmt.Sprintf("%s is the only server: the cluster ends with it, and everything in it", server.Name),
			"a snapshot of etcd that is kept elsewhere could be restored later")
	case len(l.Helpers) == 0 && s.hasOnly(server) && (l.Member || s.traceOfServer(server.Host) != ""):
		report(diag.Error, "cluster-ends", fmt.Sprintf("%s is the only server that was deployed: the cluster would end with it, and everything in it", server.Name),
			"let another server join first: k3splan deploy\nif the cluster is to end, take the servers that were never deployed out of the plan first: k3splan remove server HOST")
	case len(l.Helpers) == 0 && s.hasOnly(server):
	case len(l.Helpers) == 0:
		var others []member
		for _, other := range s.Plan.Servers() {
			if other.Name != server.Name {
				others = append(others, s.member(other.Name, other.Host.Name))
			}
		}
		report(diag.Error, "server-missing", fmt.Sprintf("only a healthy server can remove %s from etcd, and %s", server.Name, areDown(others)),
			"bring the others back, as many as are a majority; k3splan status shows how they are\n"+
				"if that many are lost for good, so is the quorum: restore the cluster from a snapshot of etcd (README.md, Back up and restore etcd)")
	case len(s.inTwoClusters()) > 0:
		for _, f := range s.inTwoClusters() {
			report(diag.Error, "two-clusters", f.message, f.hint)
		}
	case !l.Member:
	case l.Runs && len(down) > 0:
		report(diag.Error, "quorum-lost", fmt.Sprintf("%s would be stopped while %s: of %s etcd needs %d, and %d healthy ones would be left",
			server.Name, areDown(down), text.Count(voters, "voter"), needed, healthy), bringBack+s.removal(down))
	case votes && healthy < needed && len(down) == 0:
		report(diag.Error, "quorum-lost", fmt.Sprintf("etcd has %s and needs %d: without %s it could decide nothing, not even to remove it", text.Count(voters, "voter"), needed, server.Name),
			"let a third server join first: k3splan add server HOST, then k3splan deploy")
	case votes && healthy < needed:
		report(diag.Error, "quorum-lost", fmt.Sprintf("%s cannot be removed while %s: of %s etcd needs %d, and %d others are healthy",
			server.Name, areDown(down), text.Count(voters, "voter"), needed, healthy), bringBack+s.removal(down))
	case votes && spare > 0 && left == 0:
		report(diag.Warning, "spare-lost", fmt.Sprintf("%s would be left, and etcd can lose none of them", text.Count(voters-1, "voter")),
			"an odd number of servers, three or more, tolerates the loss of one")
	}
	return l
}

// hasOnly reports whether no other server was ever deployed, as far as all of their hosts say.
func (s Situation) hasOnly(server *plan.Container) bool {
	return !slices.ContainsFunc(s.Plan.Servers(), func(other *plan.Container) bool {
		o := s.Observed[other.Host.Name]
		return (server == nil || other.Name != server.Name) && (o.Unreachable != "" || s.traceOfServer(other.Host) != "")
	})
}

func areDown(down []member) string {
	if len(down) == 1 {
		return text.Enumerate(listed(down)) + " is down"
	}
	return text.Enumerate(listed(down)) + " are down"
}

// Units returns the systemd units of the containers of a host, the agent's first.
func Units(host *plan.Host) (units []string) {
	if host.Agent != nil {
		units = append(units, "podman-"+host.Agent.Name+".service")
	}
	if host.Server != nil {
		units = append(units, "container@"+host.Server.Name+".service")
	}
	return units
}

// Ready returns the servers of the plan that are healthy voters.
func (s Situation) Ready() []*plan.Container { return s.readyServers() }

// NeverDeployed reports whether no host with a server of the plan shows a trace of one, as far as all of them
// answer.
func (s Situation) NeverDeployed() bool {
	return s.hasOnly(nil)
}
