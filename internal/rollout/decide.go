package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
	"k3splan/internal/receipt"
)

// serverToken is the kind of the servers' token (hive.Secret).
const serverToken = "server-token"

// Work is what a host needs.
type Work struct {
	// System reports whether the host's system is to be evaluated, built, copied and activated.
	System bool
	// OnlyNames reports whether the new system differs in /etc/hosts, or in the list of servers to join by,
	// and in nothing else, so that nothing restarts.
	OnlyNames bool
	// Reboot reports whether the host is to be rebooted and nothing else.
	Reboot bool
	// Secrets are the kinds that have changed on a host that had others; they have to take effect.
	Secrets []string
	// Server reports whether the host has a server now: it may be stopped although the plan has none there.
	Server bool
	// K3s reports whether another k3s may run in the host's containers afterwards.
	K3s bool
	// SameOptions reports whether the server keeps its options of k3s with the new system, but for its role.
	SameOptions bool
	// Other is the host of the plan that the machine was deployed as, if it is another one.
	Other string
	// New reports whether k3splan has never finished a deployment of the host.
	New bool
	// Changes are those of the plan that concern the host, since it was deployed last.
	Changes diff.Changes
	// Reasons explain why, in words.
	Reasons []string
}

// None reports whether the host needs nothing.
func (w Work) None() bool { return !w.System && !w.Reboot && len(w.Secrets) == 0 }

// Restarts reports whether containers of the host may restart.
func (w Work) Restarts() bool {
	return w.System && !w.OnlyNames || w.Reboot || slices.Contains(w.Secrets, "agent-token") || slices.Contains(w.Secrets, serverToken)
}

// Decide returns what a reachable host needs. changed are the kinds of secrets that differ from what the
// receipt has; with all, a host that is up to date gets its system again.
func Decide(past *Past, host string, o Observed, today fingerprint.Inputs, changed []string, all bool) Work {
	hasServer := o.Receipt.ServerName() != "" || len(o.Etcd) > 0
	if o.Receipt == nil {
		return Work{System: true, New: true, Server: hasServer, Reasons: []string{cmp.Or(o.BadReceipt, "new")}}
	}
	was := o.Receipt
	w := Work{Secrets: changed, Server: hasServer}
	if name := past.nameNow(was, host); name != host {
		w.Other = name
	}
	var reasons []string
	onlyNames := false
	if was.Fingerprint != today.Fingerprint() {
		changes, err := past.Since(was)
		if err != nil {
			w.System, w.New, w.Reasons = true, true, []string{err.Error()}
			return w
		}
		w.Changes = changes.Of(host)
		w.K3s = changesK3s(w.Changes, was.Inputs, today)
		reasons = Reasons(w.Changes, was.Inputs, today)
		onlyNames = fingerprint.OnlyNames(was.Inputs, today) && !today.ReadsNames
	}
	var others []string // which can mean anything but /etc/hosts
	if back := was.RolledBack; back != nil && was.Fingerprint != today.Fingerprint() {
		others = append(others, rolledBack(back))
	}
	if w.Other != "" {
		others = append(others, "was deployed as "+was.HostName(host))
	}
	if foreign := foreignSystem(o); foreign != "" {
		others = append(others, foreign)
	}
	others = append(others, today.Loose...)
	sameOptions := len(others)+len(changed) == 0 && keepsOptions(was.Inputs, today)
	if all && len(reasons)+len(others) == 0 {
		others = append(others, "--all")
	}
	w.OnlyNames = onlyNames && len(others) == 0
	w.Reasons = append(reasons, others...)
	w.System = len(w.Reasons) > 0
	w.SameOptions = w.System && sameOptions
	for _, kind := range changed {
		w.Reasons = append(w.Reasons, SecretWord(kind))
	}
	return w
}

// changesK3s reports whether another k3s may run afterwards. That of servers comes from nixpkgs.
func changesK3s(changes diff.Changes, was, is fingerprint.Inputs) bool {
	return slices.ContainsFunc(changes, func(c diff.Change) bool { return c.Name == "versions.k3s" || c.Name == "versions.nixos" }) ||
		slices.ContainsFunc(fingerprint.Compare(was, is), func(d fingerprint.Difference) bool {
			return d.Group == "pins" && d.Name == "nixpkgs"
		})
}

// keepsOptions reports whether nothing that may become an option of k3s differs, but for a server's role.
func keepsOptions(was, is fingerprint.Inputs) bool {
	return !slices.ContainsFunc(fingerprint.Compare(was, is), func(d fingerprint.Difference) bool {
		switch d.Group {
		case "names", "servers":
			return false
		case "data":
			return d.Name != "server.type" && !strings.HasPrefix(d.Name, "agent.")
		case "files": // the one that is rendered follows from the plan
			return d.Name != "rendered" && !strings.HasPrefix(d.Name, "manifests/")
		}
		return true
	})
}

// foreignSystem says how what runs differs from what was deployed, or returns "".
func foreignSystem(o Observed) string {
	switch {
	case o.Rollback != 0:
		return fmt.Sprintf("a rollback to generation %d did not end", o.Rollback)
	case o.System != o.Receipt.System && o.System == o.Booted && o.System != o.Profile:
		return "has booted into another system than was deployed"
	case o.System != o.Receipt.System:
		return "runs another system than was deployed (a rollback, or a deployment that did not end well)"
	case o.Profile != "" && o.Profile != o.System:
		return "would boot into another system than was deployed"
	}
	return ""
}

// rolledBack says that a host runs an older system on purpose.
func rolledBack(r *receipt.Rollback) string {
	return fmt.Sprintf("was rolled back to generation %d on %s", r.Generation, r.Time.Local().Format("2006-01-02 15:04"))
}

// SecretWord returns the words for a kind of secret.
func SecretWord(kind string) string {
	if kind == "passwd" {
		return "password"
	}
	return strings.ReplaceAll(kind, "-", " ")
}

// Reasons explains why a host's system is to change: the changes of the plan that concern it, in the
// words of "k3splan diff" and with their places, and whatever else has changed in its inputs.
func Reasons(changes diff.Changes, was, is fingerprint.Inputs) []string {
	differences := fingerprint.Compare(was, is)
	disko := slices.ContainsFunc(differences, func(d fingerprint.Difference) bool { return d.Group == "pins" && d.Name == "disko" })
	changes = slices.DeleteFunc(slices.Clone(changes), func(c diff.Change) bool {
		return c.Name == "versions.disko" && !disko // the plan does not know which hosts disko partitions
	})
	var reasons, names, others, keys []string
	servers := ""
	say := func(text string) { reasons = append(reasons, text) }
	for _, change := range changes {
		say(strings.TrimSpace(change.Where + " " + change.Sentence))
	}
	for _, d := range differences {
		switch group, key, _ := strings.Cut(d.Name, "."); {
		case d.Group == "names":
			names = append(names, changedName(d))
		case d.Group == "servers":
			servers = "the servers to join by: " + cmp.Or(d.Is, "none")
		case d.Group == "pins":
			before, _, _ := strings.Cut(d.Was, " ")
			if now, _, _ := strings.Cut(d.Is, " "); before == now {
				say(fmt.Sprintf("plans/lock.json %s: another commit of %s", d.Name, now))
			}
		case d.Group == "files" && (d.Name == "rendered" || ofContainerThatCameOrWent(d.Name, was, is)): // the other reasons say it
		case d.Group == "files":
			say(changedFile(d))
		case group == "keys":
			say("ssh keys of the " + map[string]string{"admin": "admin", "deploy": "deploy user"}[key])
		case group == "cluster":
			name, _, _ := strings.Cut(key, ".")
			others = append(others, name)
		case group == "network" && !d.Added && !d.Removed && !changesKey(changes, key): // the host itself does not use it
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		say("a snippet reads " + strings.Join(keys, ", ") + " of the plan")
	}
	if len(others) > 0 {
		slices.Sort(others)
		say("a snippet reads the plan of " + strings.Join(slices.Compact(others), ", "))
	}
	if servers != "" && len(names)+len(reasons) == 0 { // otherwise that follows from the rest
		say(servers)
	}
	if len(names) > 0 {
		say("/etc/hosts: " + strings.Join(names, ", "))
	}
	if len(reasons) == 0 {
		say("what k3splan renders for it")
	}
	return reasons
}

// ofContainerThatCameOrWent reports whether a file belongs to the host only because of a server or agent
// that was added or removed.
func ofContainerThatCameOrWent(file string, was, is fingerprint.Inputs) bool {
	name := "server.name"
	switch {
	case file == "k3s/agent.yaml":
		name = "agent.name"
	case file != "k3s/server.yaml" && !strings.HasPrefix(file, "manifests/"):
		return false
	}
	return (was.Data[name] == "") != (is.Data[name] == "")
}

// changesKey reports whether one of the changes is of a key of the network.
func changesKey(changes diff.Changes, key string) bool {
	return slices.ContainsFunc(changes, func(c diff.Change) bool {
		return c.Object == diff.Network && c.Field == key || c.Object == diff.Server && c.Field == "type" && key == "init_server"
	})
}

func changedName(d fingerprint.Difference) string {
	switch {
	case d.Added:
		return "+" + d.Name
	case d.Removed:
		return "-" + d.Name
	}
	return d.Name + " " + d.Was + " → " + d.Is
}

func changedFile(d fingerprint.Difference) string {
	text := d.Name
	folder, _, _ := strings.Cut(d.Name, "/")
	switch folder {
	case "nixConfigs":
		text = "snippet " + text
	case "manifests":
		text = "manifest " + text
	case "k3splan":
		text = "k3splan's own modules"
	}
	switch {
	case d.Added:
		text += " (new)"
	case d.Removed:
		text += " (removed)"
	}
	return text
}
