package rollout

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
	"k3splan/internal/systemdiff"
	"k3splan/internal/text"
)

// Preview is what the new system of a host changes there, known before it is activated.
type Preview struct {
	// System is the store path of the new system.
	System string `json:"system"`
	// Packages are those in which it differs from the running one, which is by Bytes smaller.
	Packages []systemdiff.Package `json:"packages"`
	Bytes    int64                `json:"bytes"`
	// Units is what the system itself says that its activation would do; nil before it was copied.
	Units *systemdiff.Units `json:"units"`
	// Reboot are the parts of the system that take effect at a boot alone ("kernel").
	Reboot []string `json:"reboot"`
	// Unknown explains why some of this could not be found out, or is "".
	Unknown string `json:"unknown"`
}

// previewScript prints the closure of the running system and what of it was booted.
const previewScript = `
set -- "$(readlink -f /run/current-system)"
` + systemdiff.ClosureScript + `
echo booted
for part in kernel initrd kernel-modules systemd; do
  if [ -e /run/booted-system/$part ]; then echo "$part $(readlink -f /run/booted-system/$part)"; fi
done
echo "kernel-params $(cat /run/booted-system/kernel-params 2> /dev/null || true)"
`

// maxClosure is in bytes. A desktop's closure has some 5000 paths.
const maxClosure = 16 << 20

// closureLimit is for questions to Nix's database.
const closureLimit = 2 * time.Minute

// preview compares the new system of a host with the running one.
func preview(ctx context.Context, machine remote.Machine, system string) Preview {
	p := Preview{System: system, Packages: []systemdiff.Package{}, Reboot: []string{}}
	fail := func(what string, err error) Preview {
		p.Unknown = what + ": " + reason(err)
		return p
	}
	machine.Limit, machine.Timeout = maxClosure, closureLimit
	out, err := machine.Script(ctx, previewScript)
	if err != nil {
		return fail("the running system", err)
	}
	closure, booted, whole := strings.Cut(out, "\nbooted\n")
	if !whole {
		return fail("the running system", errIncomplete)
	}
	before, err := systemdiff.ParseClosure(closure)
	if err != nil {
		return fail("the running system", err)
	}
	// a system that was built on its host is only there
	out, err = run.Output(ctx, run.Command{Program: "sh", Args: []string{"-c", systemdiff.ClosureScript, "sh", system}, Timeout: closureLimit, Limit: maxClosure})
	if err != nil {
		if out, err = machine.Script(ctx, systemdiff.ClosureScript, system); err != nil {
			return fail("the new system", err)
		}
	}
	after, err := systemdiff.ParseClosure(out)
	if err != nil {
		return fail("the new system", err)
	}
	if packages, bytes := systemdiff.Compare(before, after); len(packages) > 0 || bytes != 0 {
		p.Packages, p.Bytes = text.OrEmpty(packages), bytes
	}
	p.Reboot = rebootParts(booted, system)
	return p
}

// rebootParts compares what was booted, as previewScript prints it, with a system in this machine's store. A part that
// one of the two lacks does not count (rebootScript).
func rebootParts(booted, system string) (parts []string) {
	parts = []string{}
	for line := range strings.Lines(booted) {
		part, was, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		file := filepath.Join(system, part)
		is, err := filepath.EvalSymlinks(file)
		if part == "kernel-params" {
			content, readErr := files.Read(file)
			is, err = strings.TrimSpace(string(content)), readErr
			was = strings.TrimSpace(was)
		}
		if err == nil && was != "" && was != is {
			parts = append(parts, strings.ReplaceAll(part, "kernel-", "kernel "))
		}
	}
	return parts
}

// unitsOf asks a host what the activation of a system that it has would do to its units.
func unitsOf(ctx context.Context, machine remote.Machine, system string) (systemdiff.Units, error) {
	machine.Timeout = closureLimit
	out, err := machine.Script(ctx, `"$1/bin/switch-to-configuration" dry-activate 2>&1`, system)
	if err != nil {
		return systemdiff.Units{}, fmt.Errorf("%s", reason(err))
	}
	return systemdiff.ParseUnits(out), nil
}

// copySystem copies a system to its host, as Colmena does it, which then finds it there. One that was built on its host
// is there.
func (d *Driver) copySystem(h *plan.Host, system string) error {
	if _, err := os.Stat(system); err != nil || h.Target.Local {
		return nil
	}
	machine := d.Machine(h)
	if d.Other != nil {
		machine = d.Other(h)
	}
	// its own context: what was begun is waited for
	return run.Run(context.Background(), machine.CopyClosure(system))
}

// foresee copies a system that is built, and shows what its activation is going to do to the units of its host. What goes
// wrong shows when Colmena does the same.
func (d *Driver) foresee(ctx context.Context, h *plan.Host, say Say) {
	system := d.result(h.Name)
	if system == "" {
		return
	}
	say("copying", "")
	if d.copySystem(h, system) != nil {
		return
	}
	machine, now := d.reach(ctx, h, "")
	if now.Unreachable != "" {
		return
	}
	units, err := unitsOf(ctx, machine, system)
	if err != nil {
		return
	}
	d.previewing.Lock()
	if d.Previews == nil {
		d.Previews = map[string]Preview{}
	}
	p, known := d.Previews[h.Name]
	if !known {
		p = Preview{System: system, Packages: []systemdiff.Package{}, Reboot: []string{}}
	}
	p.Units = &units
	d.Previews[h.Name] = p
	d.previewing.Unlock()
	if words := p.unitLines(false); len(words) > 0 {
		say("activation: "+strings.Join(words, "; "), "")
	}
}

// preview returns what is known of what a host's new system changes.
func (d *Driver) preview(host string) (Preview, bool) {
	d.previewing.Lock()
	defer d.previewing.Unlock()
	p, known := d.Previews[host]
	return p, known
}

// previews are those of the hosts that get a new system. With copies, the systems are copied first, and asked what they
// would do.
func (d *deployment) previews(ctx context.Context, driver *Driver, p Proposal, copies bool, progress ask.Progress) map[string]Preview {
	found := map[string]Preview{}
	var hosts []string
	for _, name := range p.hosts() {
		if p.Work[name].System && driver.result(name) != "" {
			hosts = append(hosts, name)
		}
	}
	what := text.Count(len(hosts), "system")
	defer progress.Drop(what)
	progress.Step(what, "comparing", "")
	var mutex sync.Mutex
	for name, preview := range each(hosts, askParallel, func(name string) Preview {
		h, system := driver.Before.Plan.Host(name), driver.result(name)
		machine, now := driver.reach(ctx, h, "")
		if now.Unreachable != "" {
			return Preview{System: system, Packages: []systemdiff.Package{}, Reboot: []string{}, Unknown: now.Unreachable}
		}
		p := preview(ctx, machine, system)
		if !copies {
			return p
		}
		mutex.Lock() // copies share this machine's network, and each reads what the one before has read
		progress.Step(what, "copying", name)
		err := driver.copySystem(h, system)
		mutex.Unlock()
		if err == nil {
			var units systemdiff.Units
			if units, err = unitsOf(ctx, machine, system); err == nil {
				p.Units = &units
			}
		}
		if err != nil {
			p.Unknown = strings.TrimPrefix(p.Unknown+"; units: "+reason(err), "; ")
		}
		return p
	}) {
		found[name] = preview
	}
	return found
}

// shortly is how many packages and units the short form of a preview names.
const shortly = 6

// Lines are the preview in words, for a terminal; without whole, the lists are cut.
func (p Preview) Lines(whole bool) (lines []string) {
	var versions, others []string
	for _, pkg := range p.Packages {
		if pkg.IsVersion() {
			versions = append(versions, pkg.String())
		} else {
			others = append(others, pkg.String())
		}
	}
	switch {
	case whole && len(versions)+len(others) > 0:
		lines = append(lines, "packages, "+systemdiff.Size(p.Bytes)+":")
		for _, word := range slices.Concat(versions, others) {
			lines = append(lines, "  "+word)
		}
	case len(versions) > 0:
		lines = append(lines, "packages: "+shortened(versions, "; ", whole)+"; "+systemdiff.Size(p.Bytes)+" in all")
	case p.Unknown == "" && !whole:
		lines = append(lines, "packages: the same, "+systemdiff.Size(p.Bytes))
	}
	lines = append(lines, p.unitLines(whole)...)
	if len(p.Reboot) > 0 {
		lines = append(lines, "takes effect at the next boot: "+text.Enumerate(p.Reboot))
	}
	if p.Unknown != "" {
		lines = append(lines, "unknown: "+diag.Printable(p.Unknown))
	}
	return lines
}

// unitLines are the units in words.
func (p Preview) unitLines(whole bool) (lines []string) {
	if p.Units == nil {
		return nil
	}
	for _, line := range p.Units.Lines() {
		if what, list, some := strings.Cut(line, ": "); some {
			line = what + ": " + shortened(strings.Fields(list), " ", whole)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		lines = []string{"no unit restarts"}
	}
	return lines
}

func shortened(list []string, separator string, whole bool) string {
	if rest := len(list) - shortly; rest > 1 && !whole {
		return strings.Join(list[:shortly], separator) + fmt.Sprintf("%sand %d more (--verbose)", separator, rest)
	}
	return strings.Join(list, separator)
}
