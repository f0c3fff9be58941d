package plan

import (
	"fmt"
	"regexp"
	"strings"

	"k3splan/internal/release"
)

// newRelease is the release for new projects, and newK3s its minor version of k3s: what hints propose.
func newRelease() release.NixOS {
	r, _ := release.Find(release.ForNewProjects)
	return r
}

func newK3s() string { return newRelease().NewK3s() }

func exampleK3s() string {
	return fmt.Sprintf("v%s.1+k3s1, or %[1]s for the patch release that nixpkgs has", newK3s())
}

// stateForm is what system.stateVersion accepts.
var stateForm = regexp.MustCompile(`^[0-9]{2}\.(05|11)$`)

// stateNumber matches what is a release in another spelling: what spreadsheets make of it, or a branch.
var stateNumber = regexp.MustCompile(`(?i)^(?:v|nixos[- ]?)?([0-9]{2})[.,](0?5|11)0*(?:-small)?$`)

// oldestState is the first release that keeps containers below /var/lib/nixos-containers.
const oldestState = "22.05"

// checkState checks a versions.state or state_version beside the release of versions.nixos, which is "" if
// it is unknown.
func checkState(state, nixos string) *finding {
	switch {
	case !stateForm.MatchString(state):
		hint := "the release that the machine was installed with, in the form " + release.ForNewProjects
		if number := stateNumber.FindStringSubmatch(state); number != nil {
			hint = fmt.Sprintf("write %s.%s", number[1], map[string]string{"5": "05", "11": "11"}[strings.TrimLeft(number[2], "0")])
		}
		return &finding{"version-invalid", "not a release of NixOS", hint}
	case release.Before(state, oldestState):
		return &finding{"version-invalid", "NixOS keeps containers elsewhere with a state of this age", oldestState + " is the oldest that works"}
	case nixos != "" && release.Before(nixos, state):
		return &finding{"version-invalid", fmt.Sprintf("NixOS %s cannot have data in the formats of a newer release", nixos),
			"the release that the machine was installed with, which never changes"}
	}
	return nil
}

func (r *networkReader) readState() {
	r.network.Versions.State = release.FirstState
	if d, text, ok := r.version("versions.state"); ok {
		if wrong := checkState(text, r.network.Versions.NixOS.Release()); wrong != nil {
			d.fail("versions.state", wrong)
			return
		}
		r.network.Versions.State = text
	}
}

// checkRelease warns about a release of NixOS that gets no more updates.
func (r *networkReader) checkRelease() {
	found, known := release.Find(r.network.Versions.NixOS.Release())
	d, _, given := r.version("versions.nixos")
	if !known || !given || !found.Ended(release.Today()) {
		return
	}
	d.warn("versions.nixos", finding{"release-ended",
		fmt.Sprintf("NixOS %s has had no security updates since %s", found.Name, release.Date(found.Ends)), r.nextStep()})
}

// checkK3s checks a minor version of k3s beside its end and the release of NixOS. What cannot be built is
// an error.
func (r *networkReader) checkK3s() {
	versions := &r.network.Versions
	if d, text, ok := r.version("versions.permit_ended"); ok {
		if version, wrong := parseK3sVersion(text); wrong != nil || version.Patch != "" || version.Minor != versions.K3s.Minor {
			d.fail("versions.permit_ended", &finding{"version-invalid", "not the minor version of versions.k3s", "delete the key: it has no effect"})
		} else {
			versions.PermitEnded = version.Minor
		}
	}
	d, _, given := r.version("versions.k3s")
	minor := versions.K3s.Minor
	if !given || minor == "" {
		return
	}
	k, isKnown := release.FindK3s(minor)
	nixos, hasRelease := release.Find(versions.NixOS.Release())
	switch {
	case hasRelease && !nixos.Has(minor) && release.OlderK3s(minor, nixos.K3s[0]):
		d.fail("versions.k3s", &finding{"k3s-missing", fmt.Sprintf("NixOS %s does not have k3s %s", nixos.Name, minor),
			fmt.Sprintf("it has %s; a running cluster gets there from its present versions by k3splan upgrade", strings.Join(nixos.Secure(release.Today()), ", "))})
	case isKnown && hasRelease && !nixos.Has(minor) && nixos.Ended(release.Today()): // gets no newer ones any more
		d.warn("versions.k3s", finding{"k3s-missing", fmt.Sprintf("NixOS %s ended without k3s %s, as far as this k3splan knows", nixos.Name, minor),
			"it has " + strings.Join(nixos.K3s, ", ") + "; " + hasMinor(minor)})
	case !isKnown || !k.Ended(release.Today()):
	case hasRelease && nixos.Insecure(minor) && versions.PermitEnded == "":
		d.fail("versions.k3s", &finding{"k3s-ended",
			fmt.Sprintf("k3s %s reached its end of life on %s; NixOS %s marks it as insecure and does not build it", minor, release.Date(k.Ends), nixos.Name), r.nextEdit()})
	default:
		d.warn("versions.k3s", finding{"k3s-ended",
			fmt.Sprintf("k3s %s reached its end of life on %s and gets no security updates", minor, release.Date(k.Ends)), r.nextStep()})
	}
}

// hasMinor names the releases that have a minor version of k3s.
func hasMinor(minor string) string {
	var names []string
	for _, r := range release.All() {
		if r.Has(minor) && !r.Released.IsZero() {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return "no release that is out has " + minor
	}
	return fmt.Sprintf("k3s %s is in NixOS %s", minor, strings.Join(names, " and "))
}

// nextStep is the hint of how to get to a release with updates.
func (r *networkReader) nextStep() string {
	here, path, there := r.way()
	switch {
	case path == nil && here.NixOS != "" && !release.Before(here.NixOS, there.NixOS):
		return "a newer version of k3splan knows the next release"
	case path == nil:
		return there.String() + " is supported" + onward(here)
	case len(path) == 1:
		return "k3splan upgrade takes the " + stepOf(path, there)
	}
	return "k3splan upgrade takes the " + stepOf(path, there) + ": " + path[0].String()
}

// nextEdit is the hint where the present versions cannot be deployed, so that upgrade cannot begin from them: what
// it would set.
func (r *networkReader) nextEdit() string {
	here, path, there := r.way()
	if path == nil || path[0].NixOS != here.NixOS {
		return there.String() + " is supported" + onward(here)
	}
	return fmt.Sprintf("set versions.k3s and versions.permit_ended to %q, the %s; then k3splan deploy and k3splan upgrade", path[0].K3s, stepOf(path, there))
}

func stepOf(path []release.Step, there release.Pair) string {
	if len(path) == 1 {
		return "step to " + there.String()
	}
	return fmt.Sprintf("first of %d steps to %s", len(path), there)
}

func onward(here release.Pair) string {
	if here.K3s == "" {
		return ""
	}
	return "; a running cluster takes one minor version after the other"
}

// way returns what the plan has, the steps from it to the newest release, if they are known, and what that is.
func (r *networkReader) way() (here release.Pair, path []release.Step, there release.Pair) {
	here = release.Pair{NixOS: r.network.Versions.NixOS.Release(), K3s: r.network.Versions.K3s.Minor}
	target := release.Newest()
	there = release.Pair{NixOS: target.Name}
	if here.K3s != "" {
		there.K3s = target.NewK3s()
	}
	path, _ = release.Path(here, there)
	return here, path, there
}
