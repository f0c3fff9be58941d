// Package lifecycle takes machines out of a rack: [Decommission] one that leaves, and [Replace] one that is
// dead and whose place a new box takes.
//
// Both are a list of steps, and each step looks first at what is so already. So whatever interrupted a run, the
// same command again completes it. Before every step that stops a server or removes one from etcd, all servers
// are asked how they are, and [rollout.Situation.Leave] judges.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
	"k3splan/internal/text"
)

// Request is what both use cases work on.
type Request struct {
	// Dir is the project's folder, and Files returns what is in it now.
	Dir   string
	Files func() fs.FS
	// Plan is valid, and Host one of its hosts.
	Plan  *plan.Plan
	Host  *plan.Host
	Vault *secrets.Vault
	Rack  Rack
	// Lease takes the lease on the rack.
	Lease func(context.Context) (Lease, error)
	// DryRun changes nothing.
	DryRun bool
}

// Lease is the right to change the rack, see package lease.
type Lease interface {
	Renew(context.Context) error
	Release()
}

// Rack is what the steps do on machines. Everything may be done again. helper is a server that is ready.
type Rack interface {
	// Look asks the host and all servers how they are.
	Look(ctx context.Context, host *plan.Host) (rollout.Situation, error)
	// Reaches reports whether the etcd at an address answers the helper.
	Reaches(ctx context.Context, helper *plan.Container, address netip.Addr) bool
	Members(ctx context.Context, helper *plan.Container) ([]k3s.Member, error)
	RemoveMember(ctx context.Context, helper *plan.Container, id string) error
	// Node returns nil if there is no such Node.
	Node(ctx context.Context, helper *plan.Container, name string) (*k3s.Node, error)
	// Remembers reports whether the cluster has the password of a Node.
	Remembers(ctx context.Context, helper *plan.Container, name string) (bool, error)
	Drain(ctx context.Context, helper *plan.Container, name string, limit time.Duration) error
	DeleteNode(ctx context.Context, helper *plan.Container, name string) error
	// Unit reports whether a unit runs, and whether it is held: stopped, and unable to start.
	Unit(ctx context.Context, host *plan.Host, unit string) (runs, held bool, err error)
	// Hold stops a unit, keeps it from starting again, and deletes the host's receipt. lasting is false if
	// the next boot starts it all the same.
	Hold(ctx context.Context, host *plan.Host, unit string) (lasting bool, err error)
	// HasReceipt reports whether the host has a receipt, Forget deletes it.
	HasReceipt(ctx context.Context, host *plan.Host) (bool, error)
	Forget(ctx context.Context, host *plan.Host) error
	// HasState reports whether k3s has state on the host, Wipe deletes it, and the tokens.
	HasState(ctx context.Context, host *plan.Host) (bool, error)
	Wipe(ctx context.Context, host *plan.Host) error
}

// Status is what became of a step.
type Status string

const (
	Planned Status = "planned"
	Done    Status = "done"
	// Already is a step with nothing left to do.
	Already Status = "already"
	// Left cannot be done by k3splan now.
	Left   Status = "left"
	Failed Status = "failed"
	// NotReached steps were not begun, because of an earlier one.
	NotReached Status = "not reached"
)

// Step is one step, and what became of it.
type Step struct {
	// Step is the stable name of its kind ("drain").
	Step string `json:"step"`
	// What the step does, in words ("drain the Node karl-k3s-agent").
	What   string `json:"what"`
	Status Status `json:"status"`
	// Detail is why it failed or is left, or "".
	Detail string `json:"detail"`
}

// Outcome is what is to be done, or was.
type Outcome struct {
	Host  string `json:"host"`
	Steps []Step `json:"steps"`
	// Objections are refused if they are errors, and asked about if they are warnings.
	Objections diag.Problems `json:"objections"`
	// Tables are unified diffs of the files of the plan that change, by file.
	Tables map[string]string `json:"tables"`
	// Left is what only the user can do about the old machine and its files, and Next are the commands that
	// follow, one each.
	Left []string `json:"left"`
	Next []string `json:"next"`
}

// View is the user, who is shown what is about to be done before any question.
type View interface {
	ask.User
	Propose(*Outcome)
}

// step is one that is not done yet.
type step struct {
	kind, what string
	// so reports whether there is nothing to do.
	so func(context.Context) (bool, error)
	do func(context.Context) error
	// cannot is why it cannot be done at all, or "".
	cannot string
}

// work is one run of a use case.
type work struct {
	Request
	view    View
	outcome *Outcome
	steps   []step
	lease   Lease // nil if none is held

	seen    rollout.Situation
	leave   rollout.Leave
	helpers []*plan.Container
	// successor is the server that becomes the init server, or "".
	successor string
}

func begin(ctx context.Context, view View, r Request) (*work, error) {
	w := &work{Request: r, view: view, outcome: &Outcome{
		Host: r.Host.Name, Steps: []Step{}, Objections: diag.Problems{}, Tables: map[string]string{}, Left: []string{}, Next: []string{},
	}}
	return w, w.look(ctx)
}

// look asks the machines, and judges.
func (w *work) look(ctx context.Context) (err error) {
	if w.seen, err = w.Rack.Look(ctx, w.Host); err != nil {
		return err
	}
	if w.Host.Server != nil {
		w.leave = w.seen.Leave(w.Host.Server)
		w.helpers = w.leave.Helpers
		return nil
	}
	w.helpers = w.seen.Ready()
	return nil
}

// answers reports whether the host itself answers.
func (w *work) answers() bool { return w.away() == "" }

// away is why the host does not answer, or "".
func (w *work) away() string { return w.seen.Observed[w.Host.Name].Unreachable }

// hasCluster reports whether there is a cluster that the host may belong to and that stays without it.
func (w *work) hasCluster() bool { return len(w.helpers) > 0 }

func (w *work) object(severity diag.Severity, code, message, hint string) {
	w.outcome.Objections = append(w.outcome.Objections, diag.Problem{Severity: severity, Code: code, Message: message, Hint: hint})
}

// judge adds what speaks against taking the host out of its cluster.
func (w *work) judge(ctx context.Context) error {
	w.outcome.Objections = append(w.outcome.Objections, w.leave.Problems...)
	host := w.Host
	if host.Server == nil && host.Agent != nil && !w.hasCluster() && len(w.Plan.Servers()) > 0 && !w.seen.NeverDeployed() {
		w.object(diag.Error, "server-missing", fmt.Sprintf("no server is ready, and only one that is can delete the Node %s", host.Agent.Name),
			"bring the servers back; k3splan status shows how they are")
	}
	if w.answers() || !w.hasCluster() {
		return nil
	}
	// it may run all the same: a removed member would join again, and pods would run twice
	const hint = "switch the machine off, or let k3splan reach it, then run the same command again"
	if host.Server != nil && w.Rack.Reaches(ctx, w.helpers[0], host.Server.Address) {
		w.object(diag.Error, "machine-answers", fmt.Sprintf("%s does not answer (%s), but its server %s still answers %s",
			host.Name, w.away(), host.Server.Name, w.helpers[0].Name), hint)
	}
	if host.Agent != nil {
		node, err := byHelper(ctx, w.helpers, func(helper *plan.Container) (*k3s.Node, error) { return w.Rack.Node(ctx, helper, host.Agent.Name) })
		switch {
		case err != nil:
			return err
		case node != nil && node.Ready:
			w.object(diag.Error, "machine-answers", fmt.Sprintf("%s does not answer (%s), but its Node %s is ready", host.Name, w.away(), host.Agent.Name),
				hint+"\na Node is ready for some 40 seconds after its machine has stopped")
		}
	}
	return ctx.Err()
}

// byHelper asks the helpers one after the other until one answers.
func byHelper[T any](ctx context.Context, helpers []*plan.Container, call func(*plan.Container) (T, error)) (answer T, err error) {
	err = errors.New("no server is ready")
	for _, helper := range helpers {
		if ctx.Err() != nil {
			return answer, context.Cause(ctx)
		}
		if answer, err = call(helper); err == nil {
			return answer, nil
		}
	}
	return answer, err
}

func (w *work) byHelper(ctx context.Context, call func(*plan.Container) error) error {
	_, err := byHelper(ctx, w.helpers, func(helper *plan.Container) (struct{}, error) { return struct{}{}, call(helper) })
	return err
}

func (w *work) add(s step) {
	w.steps = append(w.steps, s)
	w.outcome.Steps = append(w.outcome.Steps, Step{Step: s.kind, What: s.what, Status: Planned})
}

// propose finds out which steps are needed.
func (w *work) propose(ctx context.Context) error {
	for i, s := range w.steps {
		if s.cannot != "" {
			w.outcome.Steps[i].Status, w.outcome.Steps[i].Detail = Left, s.cannot
			continue
		}
		so, err := s.so(ctx)
		if err != nil {
			return err
		}
		if so {
			w.outcome.Steps[i].Status = Already
		}
	}
	return nil
}

// refusal returns the objections that are refused, as an error.
func (w *work) refusal() error {
	var refused []string
	for _, p := range w.outcome.Objections {
		if p.Severity == diag.Error {
			refused = append(refused, p.Message)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	return diag.WithHint(errors.New("refused: "+strings.Join(refused, "\n  ")), "the hints above say what to do first; nothing was changed")
}

// run asks, and does the steps. An error in the middle leaves the rest for the same command again.
func (w *work) run(ctx context.Context, consent func(context.Context) error) (*Outcome, error) {
	if err := w.propose(ctx); err != nil {
		return nil, err
	}
	if w.DryRun {
		return w.outcome, w.refusal()
	}
	w.view.Propose(w.outcome)
	if err := w.refusal(); err != nil {
		return w.outcome, err
	}
	if slices.ContainsFunc(w.outcome.Steps, func(s Step) bool { return s.Status == Planned }) {
		if err := consent(ctx); err != nil {
			return w.outcome, err
		}
	}
	unlock, err := rollout.LockProject(w.Dir)
	if err != nil {
		return w.outcome, err
	}
	defer unlock()
	if err := w.takeLease(ctx); err != nil {
		return w.outcome, err
	}
	if w.lease != nil {
		defer w.lease.Release()
	}
	return w.outcome, w.do(ctx)
}

// takeLease is for a host with a container. A cluster whose only server is dead has nobody to give one.
func (w *work) takeLease(ctx context.Context) error {
	if len(w.Host.Containers()) == 0 || w.leave.Last && !w.answers() {
		return nil
	}
	held, err := w.Lease(ctx)
	if err != nil {
		return err
	}
	w.lease = held
	return nil
}

// do does the steps that are needed, one after the other.
func (w *work) do(ctx context.Context) (err error) {
	progress := w.view.Progress(1)
	defer progress.Stop()
	for i, s := range w.steps {
		now := &w.outcome.Steps[i]
		switch {
		case s.cannot != "":
			continue
		case err == nil && ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			now.Status = NotReached
			continue
		}
		begin := func() { progress.Step(w.Host.Name, s.what, "") }
		if now.Status, err = w.one(ctx, s, begin); err != nil {
			now.Detail = err.Error()
		}
	}
	progress.Drop(w.Host.Name)
	if err == nil {
		return nil
	}
	return diag.WithHint(err, strings.TrimPrefix(diag.HintOf(err)+"\nthe same command again goes on from there", "\n"))
}

// one does a step unless it is done already; begin is called before.
func (w *work) one(ctx context.Context, s step, begin func()) (Status, error) {
	if w.lease != nil {
		if err := w.lease.Renew(ctx); err != nil {
			return Failed, err
		}
	}
	so, err := s.so(ctx)
	switch {
	case err != nil:
		return Failed, err
	case so:
		return Already, nil
	}
	begin()
	if err := s.do(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Failed, err
	}
	return Done, nil
}

// lookAgain asks all machines and refuses what is not safe any more.
func (w *work) lookAgain(ctx context.Context) error {
	if err := w.look(ctx); err != nil {
		return err
	}
	for _, p := range w.leave.Problems {
		if p.Severity == diag.Error {
			return diag.WithHint(errors.New("refused: "+p.Message), p.Hint)
		}
	}
	return nil
}

// removeMember is the step by which the host's server leaves etcd. It must not run any more.
func (w *work) removeMember() step {
	server := w.Host.Server
	members := func(ctx context.Context) (ids []string, err error) {
		all, err := byHelper(ctx, w.helpers, func(helper *plan.Container) ([]k3s.Member, error) { return w.Rack.Members(ctx, helper) })
		for _, m := range all {
			if m.IsOf(server.Name, server.Address) {
				ids = append(ids, m.ID)
			}
		}
		return ids, err
	}
	return step{
		kind: "etcd-member", what: "remove " + server.Name + " from etcd",
		so: func(ctx context.Context) (bool, error) {
			ids, err := members(ctx)
			return len(ids) == 0, err
		},
		do: func(ctx context.Context) error {
			if err := w.lookAgain(ctx); err != nil {
				return err
			}
			for _, helper := range w.helpers {
				if w.leave.Runs || w.Rack.Reaches(ctx, helper, server.Address) {
					return diag.WithHint(fmt.Errorf("%s still answers %s: it would join again as soon as it is removed", server.Name, helper.Name), "switch its machine off")
				}
			}
			// one that fails may have done it all the same
			return w.byHelper(ctx, func(helper *plan.Container) error {
				ids, err := members(ctx)
				for _, id := range ids {
					if err := w.Rack.RemoveMember(ctx, helper, id); err != nil {
						return err
					}
				}
				if err != nil || len(ids) == 0 {
					return err
				}
				if ids, err = members(ctx); err == nil && len(ids) > 0 {
					err = fmt.Errorf("etcd still has %s as a member", server.Name)
				}
				return err
			})
		},
	}
}

// deleteNode is the step by which the host's agent leaves the cluster.
func (w *work) deleteNode() step {
	name := w.Host.Agent.Name
	return step{
		kind: "node", what: "delete the Node " + name + " and its password",
		so: func(ctx context.Context) (bool, error) {
			return byHelper(ctx, w.helpers, func(helper *plan.Container) (bool, error) {
				node, err := w.Rack.Node(ctx, helper, name)
				if err != nil || node != nil {
					return false, err
				}
				remembered, err := w.Rack.Remembers(ctx, helper, name)
				return !remembered, err
			})
		},
		do: func(ctx context.Context) error {
			return w.byHelper(ctx, func(helper *plan.Container) error { return w.Rack.DeleteNode(ctx, helper, name) })
		},
	}
}

// write is the step that changes the tables, by an edit of package edit.
func (w *work) write(what string, change func(*edit.Edit) error) (step, error) {
	open := func() (*edit.Edit, *plan.Plan, error) {
		tables, err := edit.Open(w.Files())
		if err != nil {
			return nil, nil, err
		}
		if err := change(tables); err != nil {
			return nil, nil, err
		}
		now, _, err := tables.Result()
		return tables, now, err
	}
	tables, now, err := open()
	if err != nil {
		return step{}, err
	}
	for file, diff := range tables.Diff() {
		w.outcome.Tables[file] = diff
	}
	if after := tables.Aftermath(now); len(after.Left)+len(after.Mentions) > 0 {
		for _, place := range after.Left {
			if !w.isSecret(place) {
				w.outcome.Left = append(w.outcome.Left, place+" belongs to nothing then: delete it, unless the name comes back")
			}
		}
		for _, place := range after.Mentions {
			w.outcome.Left = append(w.outcome.Left, place+" mentions "+w.Host.Name+": check whether it means the host")
		}
	}
	return step{
		kind: "plan", what: what,
		so: func(context.Context) (bool, error) {
			tables, _, err := open()
			return err == nil && len(tables.Files()) == 0, err
		},
		do: func(context.Context) error {
			tables, _, err := open()
			if err != nil {
				return err
			}
			return tables.Write(w.Dir)
		},
	}, nil
}

// isSecret reports whether a place is that of a secret of the host, which is retired and not left.
func (w *work) isSecret(place string) bool {
	names, err := w.Vault.OfHost(w.Host.Name, w.Plan.HostNames())
	return err == nil && slices.ContainsFunc(names, func(name string) bool { return w.Vault.At(name) == place })
}

// chooseSuccessor chooses the server that all others join from now on, if the host has the init server.
func (w *work) chooseSuccessor() {
	if server := w.Host.Server; server != nil && server.Role == plan.Init && w.hasCluster() {
		w.successor = w.helpers[0].Name
	}
}

// succession is what follows the name of a table's change in a step, or "".
func (w *work) succession() string {
	if w.successor == "" {
		return ""
	}
	return "; " + w.successor + " becomes the init server"
}

// enumerate names containers with their kind.
func enumerate(containers []*plan.Container) string {
	var words []string
	for _, c := range containers {
		kind := "agent "
		if c.IsServer() {
			kind = "server "
		}
		words = append(words, "the "+kind+c.Name)
	}
	return text.Enumerate(words)
}
