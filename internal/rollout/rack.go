package rollout

import (
	"context"
	"os/exec"
	"slices"
	"time"

	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
)

// Rack is a living rack: what its hosts are to be, and what they say about themselves.
type Rack struct {
	// Situation needs the plan; Survey finds out the rest.
	Situation
	// Selected are the hosts that the user is after.
	Selected []*plan.Host
	// Machine tells how a host is reached.
	Machine func(*plan.Host) remote.Machine
	// Inputs are today's, of all hosts of the plan.
	Inputs map[string]fingerprint.Inputs
	// ReadSecrets gives the secrets that a host is to have.
	ReadSecrets func(*plan.Host) (fingerprint.Contents, error)
	// All lets also hosts that are up to date be deployed.
	All bool

	// Secrets are those of the hosts that were asked, after Survey.
	Secrets map[string]fingerprint.Contents
}

const (
	surveyLimit = 20 * time.Second
	// serverLimit is for questions to which k3s has to find the answer first.
	serverLimit = 40 * time.Second
	askParallel = 24
)

// Survey asks the selected hosts, and those with a server if a container is concerned, and finds out
// what the selected ones need. That a host does not answer is no error.
func (r *Rack) Survey(ctx context.Context) error {
	asked := slices.Clone(r.Selected)
	if slices.ContainsFunc(r.Selected, func(h *plan.Host) bool { return len(h.Containers()) > 0 }) {
		for _, server := range r.Plan.Servers() {
			if !slices.Contains(asked, server.Host) {
				asked = append(asked, server.Host)
			}
		}
	}
	r.Secrets = map[string]fingerprint.Contents{}
	for _, host := range asked {
		var err error
		if r.Secrets[host.Name], err = r.ReadSecrets(host); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(asked, func(h *plan.Host) bool { return !h.Target.Local }) {
		if _, err := exec.LookPath("ssh"); err != nil {
			return run.Missing("ssh") // else each host would not answer
		}
	}
	r.Observed = each(namesOf(asked), askParallel, func(name string) Observed {
		return observe(ctx, surveyLimit, r.Machine(r.Plan.Host(name)))
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.decide()
}

// decide finds out what the selected hosts need, of all that they say.
func (r *Rack) decide() (err error) {
	past := NewPast(r.Plan)
	if r.Deployed, err = past.Deployed(r.Observed); err != nil {
		return err
	}
	r.Work = map[string]Work{}
	for _, host := range r.Plan.Hosts {
		o, asked := r.Observed[host.Name]
		if !asked || o.Unreachable != "" {
			continue
		}
		var changed []string
		if o.Receipt != nil {
			changed = r.Secrets[host.Name].Changed(o.Receipt.Secrets)
			if slices.Contains(changed, serverToken) && o.Receipt.Secrets.Kinds[serverToken] != "" {
				r.OtherToken = append(r.OtherToken, host.Name)
			}
		}
		if slices.Contains(r.Selected, host) {
			r.Work[host.Name] = Decide(past, host.Name, o, r.Inputs[host.Name], changed, r.All)
		}
	}
	return nil
}

// Waves gives the order in which the hosts get what they need, and what speaks against it. If it
// matters, the servers are asked first.
func (r *Rack) Waves(ctx context.Context, limits Limits) ([]Wave, []Objection) {
	// what is objected to may be settled by what the servers say
	if r.stopsServers() || len(Judge(r.Situation)) > 0 {
		r.askServers(ctx)
	}
	return Waves(r.Plan, r.Work, r.Down(), limits), Judge(r.Situation)
}

// stopsServers tells whether a server may be stopped or started.
func (r *Rack) stopsServers() bool {
	return slices.ContainsFunc(r.Selected, func(h *plan.Host) bool { return h.Server != nil && r.Work[h.Name].Restarts() })
}

// askServers asks all servers of the plan whose hosts answer how they are.
func (r *Rack) askServers(ctx context.Context) {
	containers := map[string]string{}
	var hosts []string
	for _, server := range r.Plan.Servers() {
		o, asked := r.Observed[server.Host.Name]
		// without NixOS or a state there is nobody to ask
		if !asked || o.Unreachable != "" || o.Receipt == nil && len(o.Etcd) == 0 {
			continue
		}
		hosts = append(hosts, server.Host.Name)
		containers[server.Host.Name] = server.Name
		// it may still have the name that it was deployed with
		if o.Receipt != nil && o.Receipt.ServerName() != "" {
			containers[server.Host.Name] = o.Receipt.ServerName()
		}
	}
	r.Health = each(hosts, askParallel, func(name string) Health {
		inner, cancel := context.WithTimeout(ctx, serverLimit)
		defer cancel()
		return askServer(inner, r.Machine(r.Plan.Host(name)), containers[name])
	})
}

// askNodes asks the first server that answers; missing says why none did.
func (r *Rack) askNodes(ctx context.Context) (nodes map[string]Node, missing string) {
	missing = "no server answers"
	for _, server := range r.Plan.Servers() {
		if !r.Health[server.Host.Name].Ready {
			continue
		}
		inner, cancel := context.WithTimeout(ctx, serverLimit)
		nodes, err := askNodes(inner, r.Machine(server.Host), server.Name)
		cancel()
		if err == nil {
			return nodes, ""
		}
		missing = err.Error()
	}
	return nil, missing
}
