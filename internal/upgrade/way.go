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
)

// Way is how a plan gets to a newer release.
type Way struct {
	// From is what the plan asks for today, and To what is to be reached.
	From, To release.Pair
	// Steps are what is between them, To included; none if the plan is there.
	Steps []release.Step
}

// Find returns the way of a plan to a release of NixOS ("26.05") and a minor version of k3s ("1.35"). An
// empty release is the newest that this k3splan knows, and an empty version the newest one that the release
// has and that is supported.
func Find(p *plan.Plan, nixos, k3s string) (Way, error) {
	versions := p.Network.Versions
	w := Way{From: release.Pair{NixOS: release.NameIn(versions.NixOS.Ref), K3s: versions.K3s.Minor}}
	if w.From.NixOS == "" {
		return w, diag.WithHint(fmt.Errorf("%s: versions.nixos (%s) does not name a release of NixOS, so the way from it is unknown", p.Network.Where("versions.nixos"), versions.NixOS),
			"set it to a branch: nixos-"+release.Newest().Name)
	}
	target := release.Newest()
	if nixos != "" {
		var known bool
		if target, known = release.Find(release.NameIn(nixos)); !known {
			var names []string
			for _, r := range release.All() {
				names = append(names, r.Name)
			}
			return w, diag.WithHint(fmt.Errorf("NixOS %s is unknown to this version of k3splan", nixos), "it knows "+strings.Join(names, ", "))
		}
	}
	w.To = release.Pair{NixOS: target.Name, K3s: k3s}
	if secure := target.Secure(release.Today()); k3s == "" && w.From.K3s != "" {
		w.To.K3s = secure[len(secure)-1]
	}
	var err error
	w.Steps, err = release.Path(w.From, w.To)
	return w, err
}

// patch returns the patch release that all servers have to run before the next step of the way, where that
// takes another minor version of k3s; else "".
func (w Way) patch() string {
	if len(w.Steps) == 0 || w.Steps[0].K3s == w.From.K3s {
		return ""
	}
	k, _ := release.FindK3s(w.From.K3s)
	return k.Leave
}

// Permits reports whether a step takes a minor version of k3s that is past its end of life on the day, or
// that nixpkgs may mark so: the plan permits it as long as it is there.
func Permits(step release.Step, today time.Time) bool {
	k, known := release.FindK3s(step.K3s)
	return step.Ended || known && k.Ended(today)
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
