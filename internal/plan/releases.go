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

// oldestState is the first release that keeps containers below /var/lib/nixos-containers.
const oldestState = "22.05"

// checkState checks a versions.state or state_version beside the release of versions.nixos, which is "" if
// it is unknown.
func checkState(state, nixos string) *finding {
	switch {
	case !stateForm.MatchString(state):
		return &finding{"version-invalid", "not a release of NixOS",
			fmt.Sprintf("the release that the machine was installed with: %s", release.ForNewProjects)}
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
			fmt.Sprintf("it has %s; a running cluster takes one minor version after the other", strings.Join(nixos.Secure(release.Today()), ", "))})
	case !isKnown || !k.Ended(release.Today()):
	case hasRelease && nixos.Insecure(minor) && versions.PermitEnded == "":
		d.fail("versions.k3s", &finding{"k3s-ended",
			fmt.Sprintf("k3s %s reached its end of life on %s; NixOS %s marks it as insecure and does not build it", minor, release.Date(k.Ends), nixos.Name), r.nextStep()})
	default:
		d.warn("versions.k3s", finding{"k3s-ended",
			fmt.Sprintf("k3s %s reached its end of life on %s and gets no security updates", minor, release.Date(k.Ends)), r.nextStep()})
	}
}

// nextStep is the hint of how to get to a release with updates: the next step of the way.
func (r *networkReader) nextStep() string {
	here := release.Pair{NixOS: r.network.Versions.NixOS.Release(), K3s: r.network.Versions.K3s.Minor}
	target := release.Newest()
	there := release.Pair{NixOS: target.Name}
	if here.K3s != "" {
		there.K3s = target.NewK3s()
	}
	path, err := release.Path(here, there)
	switch {
	case err != nil && here.K3s != "":
		return fmt.Sprintf("NixOS %s with k3s %s is supported; a running cluster takes one minor version after the other", there.NixOS, there.K3s)
	case err != nil:
		return fmt.Sprintf("NixOS %s is supported", there.NixOS)
	case len(path) == 0:
		return "a newer version of k3splan knows the next release"
	}
	next := path[0]
	var set []string
	if next.NixOS != here.NixOS {
		set = append(set, "versions.nixos to nixos-"+next.NixOS)
	}
	if next.K3s != here.K3s {
		set = append(set, fmt.Sprintf("versions.k3s to %q", next.K3s))
	}
	hint := "set " + strings.Join(set, " and ")
	if len(path) > 1 {
		hint += fmt.Sprintf(", the first of %d steps to %s", len(path), there)
	}
	return hint
}
