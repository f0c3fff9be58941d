// Package upgrade takes a rack to a newer release of NixOS and of k3s, one step at a time: it moves the plan
// and its pins, deploys, reboots what needs it, checks, and stops.
package upgrade

import (
	"fmt"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/rollout"
)

// Way is how a plan gets to a newer release.
type Way struct {
	// From is what the plan asks for today, and To what is to be reached.
	From, To release.Pair
	// Steps are what is between them, To included; none if the plan is there.
	Steps []release.Step
}

// Find returns the way of a plan to a release of NixOS ("26.05", or a branch of it) and a minor version of k3s
// ("1.35"). An empty release is the newest that this k3splan knows, or the plan's if that is newer. An empty
// version is the newest one that the release has and that is supported.
func Find(p *plan.Plan, nixos, k3s string) (Way, error) {
	versions := p.Network.Versions
	w := Way{From: release.Pair{NixOS: release.NameIn(versions.NixOS.Ref), K3s: versions.K3s.Minor}}
	if w.From.NixOS == "" {
		return w, diag.WithHint(fmt.Errorf("%s: versions.nixos (%s) does not name a release of NixOS, so the way from it is unknown", p.Network.Where("versions.nixos"), versions.NixOS),
			"set it to the branch of the release that the hosts run, such as nixos-"+release.Newest().Name+"; k3splan status shows which they run")
	}
	here, known := release.Find(w.From.NixOS)
	target := release.Newest()
	switch {
	case !known:
		return w, unknown(w.From.NixOS)
	case nixos == "" && release.Before(target.Name, here.Name):
		target = here
	case nixos != "":
		if target, known = release.Find(release.NameIn(nixos)); !known {
			return w, unknown(nixos)
		}
	}
	w.To = release.Pair{NixOS: target.Name, K3s: w.From.K3s}
	switch secure := target.Secure(release.Today()); {
	case k3s != "":
		if w.To.K3s = release.MinorIn(k3s); w.To.K3s != strings.TrimPrefix(k3s, "v") {
			return w, diag.WithHint(fmt.Errorf("%q is not a minor version of k3s", k3s), "such as "+target.NewK3s()+": the patch release is the one that nixpkgs has")
		}
	case w.From.K3s == "" || target.Name == here.Name && release.OlderK3s(secure[len(secure)-1], w.From.K3s):
	default:
		w.To.K3s = secure[len(secure)-1]
	}
	var err error
	if w.Steps, err = release.Path(w.From, w.To); err != nil {
		err = diag.WithHint(err, w.advice(p, here))
	}
	return w, err
}

// advice says what to do where no path leads from the plan to what is to be reached.
func (w Way) advice(p *plan.Plan, here release.NixOS) string {
	switch {
	case w.From.K3s != "" && !here.Has(w.From.K3s):
		return fmt.Sprintf("correct versions.nixos or versions.k3s (%s): k3splan status shows what the hosts run", p.Network.Where("versions.k3s"))
	case w.From.K3s == "":
		return "leave out --k3s: the plan has no servers and no agents"
	case release.Before(w.To.NixOS, w.From.NixOS), release.OlderK3s(w.To.K3s, w.From.K3s):
		return "k3splan rollback takes hosts back to an earlier generation; k3s does not start with the data of a newer minor version"
	}
	for _, r := range release.All() {
		if r.Has(w.To.K3s) && !release.Before(r.Name, w.To.NixOS) {
			return fmt.Sprintf("NixOS %s has it: --to %[1]s --k3s %s", r.Name, w.To.K3s)
		}
	}
	return "k3splan upgrade --dry-run shows the way to the newest one"
}

func unknown(nixos string) error {
	var names []string
	for _, r := range release.All() {
		names = append(names, r.Name)
	}
	return diag.WithHint(fmt.Errorf("NixOS %s is unknown to this version of k3splan", nixos), "it knows "+strings.Join(names, ", "))
}

// Patch returns the patch release that all servers have to run before the next step of the way; "" if any will
// do.
func (w Way) Patch() string {
	if len(w.Steps) == 0 {
		return ""
	}
	return release.Patch(w.From, w.Steps[0].Pair)
}

// Next is what a call of Run does.
type Next string

const (
	Waits     Next = "waits"     // hosts do not answer
	Completes Next = "completes" // the rack is brought to where the plan is
	Patches   Next = "patches"   // nixpkgs moves within its release, for a patch release of k3s
	Steps     Next = "steps"     // the plan moves by one step
	Arrived   Next = "arrived"   // no step is left
)

// next returns what comes next for a rack.
func (w Way) next(rows []rollout.HostStatus) Next {
	switch {
	case len(unreachable(rows)) > 0:
		return Waits
	case len(open(rows)) > 0:
		return Completes
	case len(w.Steps) == 0:
		return Arrived
	case len(below(rows, w.Patch())) > 0:
		return Patches
	}
	return Steps
}

// Permits reports whether a minor version of k3s is past its end of life on the day, so that nixpkgs may mark it
// as insecure: the plan permits it as long as it is a step on the way.
func Permits(step release.Step, today time.Time) bool {
	k, known := release.FindK3s(step.K3s)
	return known && k.Ended(today)
}

// keysOf returns the keys of the plan's versions with what they are set to by a step; empty means that the key
// is removed.
func keysOf(p *plan.Plan, from release.Pair, step release.Step, today time.Time) map[string]string {
	versions := p.Network.Versions
	keys := map[string]string{}
	if step.NixOS != from.NixOS {
		keys["nixos"] = strings.Replace(versions.NixOS.String(), from.NixOS, step.NixOS, 1)
	}
	if step.K3s != from.K3s {
		keys["k3s"] = step.K3s
	}
	if step.K3s != "" {
		keys["permit_ended"] = ""
		if Permits(step, today) {
			keys["permit_ended"] = step.K3s
		}
	}
	return keys
}

// Words describe a step: "NixOS 25.11 with k3s 1.32, then a reboot".
func Words(step release.Step) string {
	words := step.Pair.String()
	if step.Reboot {
		words += ", then reboots"
	}
	return words
}
