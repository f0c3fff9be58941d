package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
)

// Work is what a host needs.
type Work struct {
	// System tells that the host's system is to be evaluated, built, copied and activated.
	System bool
	// OnlyNames tells that the new system differs in /etc/hosts alone, so that nothing restarts.
	OnlyNames bool
	// Secrets are the kinds that have changed on a host that had others; they have to take effect.
	Secrets []string
	// New tells that k3splan has never finished a deployment of the host.
	New bool
	// Reasons say why, in words.
	Reasons []string
}

// None tells whether the host is as it should be.
func (w Work) None() bool { return !w.System && len(w.Secrets) == 0 }

// Restarts tells whether containers of the host may restart.
func (w Work) Restarts() bool {
	return w.System && !w.OnlyNames || slices.Contains(w.Secrets, "agent-token") || slices.Contains(w.Secrets, "server-token")
}

// Decide finds out what a reachable host needs. changed are the kinds of secrets that are not what
// the receipt has; all deploys regardless.
func Decide(p *plan.Plan, h *plan.Host, o Observed, today fingerprint.Inputs, changed []string, all bool) Work {
	if o.Receipt == nil {
		why := "new"
		if o.BadReceipt != "" {
			why = o.BadReceipt
		}
		return Work{System: true, New: true, Reasons: []string{why}}
	}
	was := o.Receipt
	w := Work{Secrets: changed}
	add := func(reasons ...string) {
		w.System = true
		w.Reasons = append(w.Reasons, reasons...)
	}
	if was.Fingerprint != today.Fingerprint() {
		add(Reasons(p, h, was.Inputs, today)...)
		w.OnlyNames = fingerprint.OnlyNames(was.Inputs, today)
	}
	if strange := strangeSystem(o); strange != "" {
		add(strange)
		w.OnlyNames = false
	}
	if len(today.Loose) > 0 {
		add(today.Loose...)
		w.OnlyNames = false
	}
	if all && !w.System {
		add("--all")
		w.OnlyNames = false
	}
	for _, kind := range changed {
		w.Reasons = append(w.Reasons, SecretWord(kind))
	}
	return w
}

// strangeSystem tells how what runs differs from what was deployed.
func strangeSystem(o Observed) string {
	switch {
	case o.System != o.Receipt.System && o.System == o.Booted && o.System != o.Profile:
		return "has booted into another system than was deployed"
	case o.System != o.Receipt.System:
		return "runs another system than was deployed (a rollback, or a deployment that did not end well)"
	case o.Profile != "" && o.Profile != o.System:
		return "would boot into another system than was deployed"
	}
	return ""
}

// SecretWord names a kind of secret for people.
func SecretWord(kind string) string {
	if kind == "passwd" {
		return "password"
	}
	return strings.ReplaceAll(kind, "-", " ")
}

// Reasons says how two inputs of a host differ, with the places in the tables of today's plan.
func Reasons(p *plan.Plan, h *plan.Host, was, is fingerprint.Inputs) []string {
	r := &reasons{plan: p, host: h}
	for _, d := range fingerprint.Compare(was, is) {
		r.add(d)
	}
	if len(r.others) > 0 {
		slices.Sort(r.others)
		r.say("a snippet reads the plan of " + strings.Join(slices.Compact(r.others), ", "))
	}
	if len(r.names) > 0 {
		r.say("/etc/hosts: " + strings.Join(r.names, ", "))
	}
	if len(r.list) == 0 {
		r.say("what k3splan renders for it")
	}
	return r.list
}

type reasons struct {
	plan   *plan.Plan
	host   *plan.Host
	list   []string
	names  []string
	others []string
}

func (r *reasons) say(text string) { r.list = append(r.list, text) }

func (r *reasons) add(d fingerprint.Difference) {
	switch d.Group {
	case "names":
		switch {
		case d.Added:
			r.names = append(r.names, "+"+d.Name)
		case d.Removed:
			r.names = append(r.names, "-"+d.Name)
		default:
			r.names = append(r.names, d.Name+" "+arrow(d.Was, d.Is))
		}
	case "pins":
		r.pin(d)
	case "files":
		r.file(d)
	case "data":
		r.data(d)
	}
}

func arrow(was, is string) string { return orNothing(was) + " → " + orNothing(is) }

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

func (r *reasons) pin(d fingerprint.Difference) {
	was, _, _ := strings.Cut(d.Was, " ")
	is, _, _ := strings.Cut(d.Is, " ")
	name := d.Name
	if name == "nixpkgs" && was != is {
		name, was, is = "nixos", strings.TrimPrefix(was, "nixos-"), strings.TrimPrefix(is, "nixos-")
	}
	if was == is {
		r.say(fmt.Sprintf("plans/lock.json %s: another commit of %s", name, is))
		return
	}
	r.say(name + " " + arrow(was, is))
}

func (r *reasons) file(d fingerprint.Difference) {
	text := d.Name
	folder, _, _ := strings.Cut(d.Name, "/")
	switch folder {
	case "nixConfigs":
		text = "snippet " + text
	case "manifests":
		text = "manifest " + text
	case "rendered":
		return // says nothing that the rest does not
	case "k3splan":
		text = "k3splan's own modules"
	}
	switch {
	case d.Added:
		text += " (new)"
	case d.Removed:
		text += " (removed)"
	}
	r.say(text)
}

func (r *reasons) data(d fingerprint.Difference) {
	group, key, _ := strings.Cut(d.Name, ".")
	switch group {
	case "host":
		r.say(fmt.Sprintf("plans/hosts.csv:%d %s %s", r.host.Line, key, arrow(d.Was, d.Is)))
	case "server", "agent":
		r.container(group, key, d)
	case "network":
		r.say("plans/network.yaml " + key + " " + arrow(d.Was, d.Is))
	case "k3s":
		if text := "k3s " + arrow(d.Was, d.Is); !d.Added && !d.Removed && !slices.Contains(r.list, text) {
			r.say(text)
		}
	case "init":
		if !d.Added && !d.Removed {
			r.say("the init server's address " + arrow(d.Was, d.Is))
		}
	case "keys":
		r.say("ssh keys of the " + map[string]string{"admin": "admin", "deploy": "deploy user"}[key])
	case "cluster":
		name, _, _ := strings.Cut(key, ".")
		r.others = append(r.others, name)
	}
}

func (r *reasons) container(role, key string, d fingerprint.Difference) {
	container := r.host.Server
	if role == "agent" {
		container = r.host.Agent
	}
	switch {
	case container == nil:
		if key == "name" {
			r.say(fmt.Sprintf("%s %s removed", role, d.Was))
		}
	case d.Added && key == "name":
		r.say(fmt.Sprintf("plans/k3s.csv:%d %s %s added", container.Line, role, d.Is))
	case d.Added && slices.Contains([]string{"ip", "type", "mac", "taints"}, key):
	default:
		r.say(fmt.Sprintf("plans/k3s.csv:%d %s %s", container.Line, key, arrow(d.Was, d.Is)))
	}
}

// newest gives the receipt that was written last, or nil.
func newest(observed map[string]Observed) *Receipt {
	var last *Receipt
	for _, name := range slices.Sorted(maps.Keys(observed)) {
		if r := observed[name].Receipt; r != nil && (last == nil || r.Time.After(last.Time)) {
			last = r
		}
	}
	return last
}
