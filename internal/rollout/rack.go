package rollout

import (
	"context"
	"maps"
	"os/exec"
	"slices"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
)

// Rack is a running rack: what its hosts are to be, and what they say about themselves.
type Rack struct {
	// Situation needs the plan; Survey finds out the rest.
	Situation
	// Selected are the hosts that the user named.
	Selected []*plan.Host
	// Machine returns how a host is reached.
	Machine func(*plan.Host) remote.Machine
	// Inputs are today's, of all hosts of the plan.
	Inputs map[string]fingerprint.Inputs
	// ReadSecrets returns the secrets that a host is to have.
	ReadSecrets func(*plan.Host) (fingerprint.Contents, error)
	// All also deploys hosts that are up to date.
	All bool

	// Secrets are those of the hosts that were asked, after Survey.
	Secrets map[string]fingerprint.Contents
	// objections are those of Waves
	objections []objection
	// asker is nil for ssh to the machines
	asker asker
}

// asker asks hosts, and servers on them.
type asker interface {
	host(ctx context.Context, h *plan.Host) Observed
	server(ctx context.Context, h *plan.Host, name string) Health
}

// bySSH asks machines.
type bySSH func(*plan.Host) remote.Machine

func (b bySSH) host(ctx context.Context, h *plan.Host) Observed {
	machine := b(h)
	machine.Once = h.Server == nil // most often nothing more is asked of it
	return observe(ctx, surveyLimit, machine)
}

func (b bySSH) server(ctx context.Context, h *plan.Host, name string) Health {
	ctx, cancel := context.WithTimeout(ctx, serverLimit)
	defer cancel()
	return askServer(ctx, b(h), name)
}

func (r *Rack) ask() asker {
	if r.asker != nil {
		return r.asker
	}
	return bySSH(r.Machine)
}

const (
	surveyLimit = 20 * time.Second
	// serverLimit is for questions to which k3s has to find the answer first.
	serverLimit = 40 * time.Second
)

// askParallel is how many hosts are asked at the same time.
var askParallel = 24

// Survey asks the selected hosts, and those with a server if a container is concerned, and finds out
// what the selected ones need. A host that does not answer is not an error.
func (r *Rack) Survey(ctx context.Context) error {
	asked := slices.Clone(r.Selected)
	add := func(host *plan.Host) {
		if !slices.Contains(asked, host) {
			asked = append(asked, host)
		}
	}
	if slices.ContainsFunc(r.Selected, func(h *plan.Host) bool { return len(h.Containers()) > 0 }) {
		for _, server := range r.Plan.Servers() {
			add(server.Host)
		}
	}
	r.Secrets, r.Observed = map[string]fingerprint.Contents{}, map[string]Observed{}
	if err := r.observe(ctx, asked); err != nil {
		return err
	}
	known, mayFound := len(asked), r.mayFound()
	if deployed, err := NewPast(r.Plan).Deployed(r.Observed); err == nil {
		r.Deployed = deployed
	}
	for _, host := range r.Plan.Hosts {
		// a host that had a server may still run it; and where a cluster may be founded, any host may have a
		// server of one that is there already, or a receipt that names it
		if mayFound || hasContainers(asked[:known]) && r.hadServer(host.Name) {
			add(host)
		}
	}
	if err := r.observe(ctx, asked[known:]); err != nil {
		return err
	}
	return r.decide()
}

// observe asks hosts and adds what they answer to Observed.
func (r *Rack) observe(ctx context.Context, hosts []*plan.Host) error {
	for _, host := range hosts {
		var err error
		if r.Secrets[host.Name], err = r.ReadSecrets(host); err != nil {
			return err
		}
	}
	if err := needSSH(hosts); err != nil {
		return err
	}
	maps.Copy(r.Observed, askHosts(ctx, r.Plan, hosts, r.ask()))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// needSSH returns an error if there is no ssh by which hosts could be reached: otherwise none of them
// would seem to answer.
func needSSH(hosts []*plan.Host) error {
	if slices.ContainsFunc(hosts, func(h *plan.Host) bool { return !h.Target.Local }) {
		if _, err := exec.LookPath("ssh"); err != nil {
			return run.Missing("ssh")
		}
	}
	return nil
}

// mayFound reports whether the init server may be about to found a cluster.
func (r *Rack) mayFound() bool {
	init := r.Plan.InitServer()
	return init != nil && slices.Contains(r.Selected, init.Host) && r.isEmpty(init)
}

// decide finds out what the selected hosts need, after all that were asked have answered.
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
			if o.Attempt != nil { // it may have brought others
				changed = slices.Concat(changed, r.Secrets[host.Name].Changed(*o.Attempt))
				slices.Sort(changed)
				changed = slices.Compact(changed)
			}
		}
		if slices.Contains(r.Selected, host) {
			r.Work[host.Name] = Decide(past, host.Name, o, r.Inputs[host.Name], changed, r.All)
		}
	}
	return nil
}

// leaveSystems is for what brings secrets alone.
func (r *Rack) leaveSystems() {
	for name, work := range r.Work {
		work.System, work.Reasons = false, nil
		for _, kind := range work.Secrets {
			work.Reasons = append(work.Reasons, SecretWord(kind))
		}
		r.Work[name] = work
	}
}

// Waves returns the order in which the hosts get what they need, and what speaks against it. If it
// matters, the servers are asked first.
func (r *Rack) Waves(ctx context.Context, limits Limits) ([]Wave, diag.Problems) {
	if r.touchesK3s() {
		r.Health = askServers(ctx, r.Situation, r.ask())
		r.NoNode = r.withoutNode(ctx)
	}
	r.objections = judge(r.Situation, false)
	var problems diag.Problems
	for _, o := range r.objections {
		problems = append(problems, o.Problem)
	}
	return Waves(r.Plan, r.Work, r.urgent(), limits), problems
}

// withoutNode returns the agents that the plan removes and that have no Node, if a server says.
func (r *Rack) withoutNode(ctx context.Context) (names []string) {
	var removed []string
	for _, change := range r.changesOf(diff.Ask) {
		if change.Object == diff.Agent && change.Action == diff.Removed {
			removed = append(removed, change.Name)
		}
	}
	if len(removed) == 0 || r.Machine == nil {
		return nil
	}
	nodes, missing := r.askNodes(ctx)
	if missing != "" {
		return nil
	}
	return slices.DeleteFunc(removed, func(name string) bool { _, has := nodes[name]; return has })
}

// askHosts asks hosts of a plan at the same time.
func askHosts(ctx context.Context, p *plan.Plan, hosts []*plan.Host, ask asker) map[string]Observed {
	return each(namesOf(hosts), askParallel, func(name string) Observed { return ask.host(ctx, p.Host(name)) })
}

// askServers asks all servers of the plan, and those that the receipts name, how they are.
func askServers(ctx context.Context, s Situation, ask asker) map[string]Health {
	var hosts []string
	for _, host := range s.Plan.Hosts {
		o, asked := s.Observed[host.Name]
		// without a receipt or a state there is no server to ask
		if asked && o.Unreachable == "" && s.runs(host.Name) != "" && (o.Receipt != nil || len(o.Etcd) > 0) {
			hosts = append(hosts, host.Name)
		}
	}
	return each(hosts, askParallel, func(name string) Health { return ask.server(ctx, s.Plan.Host(name), s.runs(name)) })
}

// askNodes asks the first server that answers; missing says why none did.
func (r *Rack) askNodes(ctx context.Context) (nodes map[string]Node, missing string) {
	missing = "no server answers"
	for _, server := range r.readyServers() {
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
