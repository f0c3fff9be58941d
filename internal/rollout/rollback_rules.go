package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k3splan/internal/release"
	"k3splan/internal/text"
)

// stepsOf returns the steps of a rollback in the order of the plan, with their hosts.
func (s Situation) stepsOf() (hosts []string, steps []Step) {
	for _, h := range s.Plan.Hosts {
		if step, ok := s.Steps[h.Name]; ok && !s.Work[h.Name].None() {
			hosts, steps = append(hosts, h.Name), append(steps, step)
		}
	}
	return hosts, steps
}

// runningServer is the name of the server that a host runs, and the k3s of it, as far as that is known.
func (s Situation) runningServer(host string, step Step) (name string, versions []string) {
	name = s.Observed[host].Receipt.ServerName()
	for _, version := range []string{strings.TrimPrefix(s.Health[host].Version, "v"), step.From.Server.K3s} {
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	return name, versions
}

// rollbackK3sMinor: k3s and its etcd do not go back a minor version: what the newer one has written is not
// understood by the older one (https://docs.k3s.io/upgrades/roll-back). What is newer goes by deploy, which
// knows the order.
func rollbackK3sMinor(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		to := steps[i].To
		name, versions := s.runningServer(host, steps[i])
		if name == "" || to.Server.Name == "" {
			continue
		}
		differs := slices.IndexFunc(versions, func(v string) bool { return release.MinorIn(v) != release.MinorIn(to.Server.K3s) })
		switch {
		case to.Server.K3s == "" || len(versions) == 0:
			found = append(found, finding{
				message: fmt.Sprintf("whether generation %d of %s has another minor version of k3s than runs is unknown, and a server cannot go back one", to.Number, host),
				hint:    "k3splan generations " + host + " shows what is known; --force rolls back all the same",
				about:   []string{host},
			})
		case differs >= 0:
			found = append(found, finding{
				message: fmt.Sprintf("the server on %s runs k3s %s, and generation %d has %s: k3s cannot go back to an older minor version, as its data does not", host, versions[differs], to.Number, to.Server.K3s),
				hint: "the way back is a snapshot of etcd that was taken with the older version: k3splan etcd list, k3splan etcd restore FILE\n" +
					"the way forward is k3splan deploy",
				about: []string{host},
			})
		}
	}
	return found
}

// rollbackServer: etcd knows a server by its name and address. One that goes, comes back or has another name
// must leave etcd or join it, which is more than activating a system.
func rollbackServer(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		from, to := steps[i].From, steps[i].To
		name, _ := s.runningServer(host, steps[i])
		moved := from.Server.Address != "" && to.Server.Address != "" && from.Server.Address != to.Server.Address
		what := ""
		switch {
		case name == to.Server.Name && !moved:
			continue
		case name == "":
			what = "has the server " + to.Server.Name + ", which is not a member of etcd any more"
		case to.Server.Name == "":
			what = "does not have the server " + name + ", which stays a member of etcd"
		case name != to.Server.Name:
			what = fmt.Sprintf("has the server %s and not %s", to.Server.Name, name)
		default:
			what = fmt.Sprintf("has the server %s at %s and not %s", name, to.Server.Address, from.Server.Address)
		}
		found = append(found, finding{
			message: fmt.Sprintf("generation %d of %s %s", to.Number, host, what),
			hint:    "change the plan back instead: k3splan diff shows the steps, k3splan deploy does them in order",
			about:   []string{host},
		})
	}
	return found
}

// rollbackAgentNewer is agentNewer for generations: their versions are not the plan's.
func rollbackAgentNewer(s Situation) (found []finding) {
	oldest := ""
	for _, host := range slices.Sorted(maps.Keys(s.Health)) {
		if version := strings.TrimPrefix(s.Health[host].Version, "v"); s.Health[host].Ready && version != "" && (oldest == "" || release.OlderK3s(version, oldest)) {
			oldest = version
		}
	}
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		if to := steps[i].To; to.Agent.K3s != "" && oldest != "" && release.OlderK3s(release.MinorIn(oldest), release.MinorIn(to.Agent.K3s)) {
			found = append(found, finding{
				message: fmt.Sprintf("the agent in generation %d of %s has k3s %s, and a server runs %s: an agent must not be newer than a server", to.Number, host, to.Agent.K3s, oldest),
				hint:    "deploy the newer version to the servers first",
				about:   []string{host},
			})
		}
	}
	return found
}

// rollbackAgent: an agent that goes leaves its Node behind, one that comes back takes its own again.
func rollbackAgent(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		to, name := steps[i].To, s.Observed[host].Receipt.AgentName()
		message := ""
		switch {
		case name == to.Agent.Name:
			continue
		case to.Agent.Name == "":
			message = fmt.Sprintf("generation %d of %s does not have the agent %s: its pods stop, and its Node stays behind", to.Number, host, name)
		case name == "":
			message = fmt.Sprintf("generation %d of %s has the agent %s, which the plan does not have any more: it joins again", to.Number, host, to.Agent.Name)
		default:
			message = fmt.Sprintf("generation %d of %s has the agent %s and not %s, whose pods stop and whose Node stays behind", to.Number, host, to.Agent.Name, name)
		}
		found = append(found, finding{message: message, hint: "kubectl get nodes shows what is left over", about: []string{host}})
	}
	return found
}

// rollbackUnknown: without the receipt of its deployment, what else a generation contains is not known, its ssh
// access for example.
func rollbackUnknown(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		if steps[i].Was == nil {
			found = append(found, finding{
				message: fmt.Sprintf("no receipt is kept of generation %d of %s: it was never deployed to a good end by this k3splan, and whether it can be reached afterwards is unknown", steps[i].To.Number, host),
				hint:    "have a console at hand",
				about:   []string{host},
			})
		}
	}
	return found
}

// rollbackSecrets: secrets are files beside the system, and do not go back with it.
func rollbackSecrets(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		if steps[i].Was == nil {
			continue
		}
		var missing []string
		for _, kind := range slices.Sorted(maps.Keys(steps[i].Was.Secrets.Kinds)) {
			if _, has := s.Observed[host].Receipt.Secrets.Kinds[kind]; !has {
				missing = append(missing, SecretWord(kind))
			}
		}
		if len(missing) > 0 {
			found = append(found, finding{
				message: fmt.Sprintf("generation %d of %s uses a secret that the plan does not have any more (%s): what is left of it on the host is used", steps[i].To.Number, host, strings.Join(missing, ", ")),
				hint:    "k3splan deploy, with the plan changed back, brings the secret as well",
				about:   []string{host},
			})
		}
	}
	return found
}

// rollbackApart: numbers of generations are each host's own, so that the same number can mean different plans.
func rollbackApart(s Situation) []finding {
	hosts, steps := s.stepsOf()
	plans := map[string]bool{}
	for _, step := range steps {
		if step.Was != nil {
			plans[string(step.Was.Plan)] = true
		}
	}
	if len(plans) < 2 {
		return nil
	}
	return one(finding{
		message: text.Enumerate(hosts) + " go back to different plans: numbers of generations are each host's own",
		hint:    "compare the dates above; k3splan generations HOST shows the others",
		about:   hosts,
	})
}

// rollbackReboots is rebootsInWave for generations.
func rollbackReboots(s Situation) (found []finding) {
	hosts, steps := s.stepsOf()
	for i, host := range hosts {
		if boots := steps[i].To.Boots; len(boots) > 0 {
			found = append(found, finding{
				message: fmt.Sprintf("%s is rebooted: generation %d has another %s, which cannot change in a running system", host, steps[i].To.Number, text.Enumerate(boots)),
				hint:    "it is set to boot that generation, and reboots in its wave, with the gate after it",
				about:   []string{host},
			})
		}
	}
	return found
}

// rollbackUndone: a deployment brings the plan that somebody rolled back.
func rollbackUndone(s Situation) (found []finding) {
	for _, h := range s.changed() {
		r := s.Observed[h.Name].Receipt
		if r == nil || r.RolledBack == nil || s.Steps != nil || !s.Work[h.Name].System {
			continue
		}
		found = append(found, finding{
			message: fmt.Sprintf("%s %s: the deployment undoes that", h.Name, rolledBack(r.RolledBack)),
			hint:    fmt.Sprintf("if the plan contains what made it necessary, leave the host out for now: k3splan deploy '!%s'", h.Name),
			where:   h.Where("name"), about: []string{h.Name},
		})
	}
	return found
}
