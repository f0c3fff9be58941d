package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// brokerUnit is there in systems whose D-Bus is dbus-broker, and not in those with dbus-daemon.
const brokerUnit = "etc/systemd/system/dbus-broker.service"

// rebootScript prints a line "reboot PART" for each part of the running system that takes effect at a boot
// alone and is not what was booted. A part that one of the two lacks does not count.
const rebootScript = `
booted=/run/booted-system now=/run/current-system
while read -r part name; do
  if [ ! -e $booted/$part ] || [ ! -e $now/$part ]; then continue; fi
  if [ $booted/$part -ef $now/$part ] || [ -f $now/$part ] && cmp -s $booted/$part $now/$part; then continue; fi
  echo "reboot $name"
done << 'end'
kernel kernel
initrd initrd
kernel-params kernel parameters
kernel-modules kernel modules
systemd systemd
switch-inhibitors switch inhibitors
end
if [ -e $booted/etc ] && [ -e $now/etc ]; then
  case $([ -e $booted/` + brokerUnit + ` ] && echo a)$([ -e $now/` + brokerUnit + ` ] && echo b) in a | b) echo "reboot D-Bus" ;; esac
fi
`

// inhibitorsScript prints for the booted system and for the one in $1, what forbids to activate one while the other
// runs: the hash of its switch inhibitors, or "none", and whether its D-Bus is dbus-broker.
const inhibitorsScript = `
for system in /run/booted-system "$1"; do
  if [ -f "$system/switch-inhibitors" ]; then sha256sum < "$system/switch-inhibitors" | cut -c 1-64; else echo none; fi
  if [ -e "$system/` + brokerUnit + `" ]; then echo broker; elif [ -e "$system/etc" ]; then echo daemon; else echo unknown; fi
done
`

// inhibitedBy asks a host what forbids to activate a new system, which is in the store of this machine or was
// built on the host, before a reboot. Nothing is known of a system that was built elsewhere.
//
// A change of the D-Bus implementation cannot be activated in a running system (release notes of NixOS
// 26.05). Switch inhibitors are declared by a system itself (its option system.switch.inhibitors), and its
// activation compares them with those that were booted.
func inhibitedBy(ctx context.Context, machine remote.Machine, system string) (parts []string, err error) {
	if system == "" {
		return nil, nil
	}
	out, err := machine.Script(ctx, inhibitorsScript, system)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	words := strings.Fields(out)
	if len(words) != 4 {
		return nil, errIncomplete
	}
	booted, planned := words[:2], words[2:]
	if info, err := os.Stat(filepath.Join(system, "etc")); err == nil && info.IsDir() {
		planned = []string{"none", "daemon"}
		if list, err := files.Read(filepath.Join(system, "switch-inhibitors")); err == nil {
			sum := sha256.Sum256(list)
			planned[0] = hex.EncodeToString(sum[:])
		}
		if _, err := os.Lstat(filepath.Join(system, brokerUnit)); err == nil {
			planned[1] = "broker"
		}
	}
	if booted[0] != "none" && planned[0] != "none" && booted[0] != planned[0] {
		parts = append(parts, "switch inhibitors")
	}
	if booted[1] != "unknown" && planned[1] != "unknown" && booted[1] != planned[1] {
		parts = append(parts, "D-Bus")
	}
	return parts, nil
}

// rebootsInWave: dbus-daemon and dbus-broker cannot replace each other in a running system, so a host whose
// new release has the other one is set to boot it, and reboots in its wave. The same happens where a system
// has switch inhibitors, which are known only after it was built.
func rebootsInWave(s Situation) []finding {
	planned, known := release.Find(release.NameIn(s.Plan.Network.Versions.NixOS.Ref))
	if !known || s.Steps != nil { // rollbackReboots
		return nil
	}
	var hosts []string
	was := ""
	for _, h := range s.changed() {
		runs, known := release.Find(release.NameIn(s.Observed[h.Name].NixOS))
		if known && s.Work[h.Name].System && !s.Work[h.Name].OnlyNames && runs.DBus != planned.DBus {
			hosts, was = append(hosts, h.Name), runs.Name
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	verb := "is"
	if len(hosts) > 1 {
		verb = "are"
	}
	hint := "each host is set to boot its new system, and reboots in its wave, with the gate after it"
	if s.Unordered {
		hint = "without --no-gates each host is set to boot its new system, and reboots in its wave"
	}
	return one(finding{
		message: fmt.Sprintf("%s %s rebooted: NixOS %s has another D-Bus than NixOS %s, which cannot change in a running system", text.Enumerate(hosts), verb, planned.Name, was),
		hint:    hint,
		where:   s.Plan.Network.Where("versions.nixos"), about: hosts,
	})
}

// switchRefused is what a system says that refuses to be activated (switch-to-configuration); inhibitorsCheck is
// the check of NixOS for what needs a reboot. There may be others, made by the user.
var switchRefused = regexp.MustCompile(`Pre-switch check '([^']+)' failed`)

const inhibitorsCheck = "switchInhibitors"

// refusedBy returns the check by which a system refused its activation, or "".
func refusedBy(err error) string {
	found := switchRefused.FindStringSubmatch(err.Error())
	if found == nil || found[0] == guardRefused {
		return ""
	}
	return found[1]
}

// needsBoot adds the way on to an error of a system that cannot be activated before a reboot.
func needsBoot(err error, host string) error {
	return diag.WithHint(err, "k3splan deploy "+host+" --reboot: it is set for the next boot, and the host reboots in its wave")
}

// switches returns whether the new system of a host may be activated in the running one. Where nothing is
// known to forbid it, it may.
func (d *Driver) switches(ctx context.Context, h *plan.Host) (bool, error) {
	was := d.Before.Observed[h.Name].Receipt
	if was != nil && was.Inputs.Pins["nixpkgs"] == d.Inputs[h.Name].Pins["nixpkgs"] && !d.otherRelease(h) {
		return true, nil // only nixpkgs brings what a running system cannot take
	}
	machine, _ := d.reach(ctx, h, "")
	parts, err := inhibitedBy(ctx, machine, d.result(h.Name))
	switch {
	case err != nil:
		return false, fmt.Errorf("asking %s: %w", h.Name, err)
	case len(parts) == 0:
		return true, nil
	case h.Target.Local:
		return false, diag.WithHint(fmt.Errorf("the new system of %s cannot be activated while the old one runs (%s), and k3splan runs on it", h.Name, text.Enumerate(parts)),
			"k3splan deploy "+h.Name+" -- boot; then reboot the machine, and: k3splan deploy "+h.Name)
	case !slices.Contains(d.MayReboot, h.Name):
		return false, needsBoot(fmt.Errorf("the new system of %s cannot be activated while the old one runs (%s)", h.Name, text.Enumerate(parts)), h.Name)
	}
	return false, nil
}

// otherRelease reports whether a host runs another release of NixOS than the plan names.
func (d *Driver) otherRelease(h *plan.Host) bool {
	runs, planned := release.NameIn(d.Before.Observed[h.Name].NixOS), release.NameIn(d.Before.Plan.Network.Versions.NixOS.Ref)
	return runs != "" && planned != "" && runs != planned
}

// reboot reboots a host and waits until it answers after another boot.
func (d *Driver) reboot(ctx context.Context, h *plan.Host, say Say) error {
	machine, o := d.reach(ctx, h, "")
	switch {
	case h.Target.Local:
		return diag.WithHint(fmt.Errorf("%s is the machine that k3splan runs on, and would end it", h.Name), "reboot it yourself, then: k3splan deploy "+h.Name)
	case o.Unreachable != "":
		return fmt.Errorf("%s does not answer any more: %s", h.Name, o.Unreachable)
	case o.BootID == "":
		return fmt.Errorf("%s has no boot ID by which its reboot could be seen", h.Name)
	}
	say("rebooting", "")
	_, err := machine.Script(ctx, askGuard+"systemctl reboot")
	// a connection that drops is how a reboot begins
	if failed := (*remote.Error)(nil); err != nil && (ctx.Err() != nil || !errors.As(err, &failed) || !failed.Unreached) {
		return fmt.Errorf("rebooting %s: %s", h.Name, reason(err))
	}
	back := func(ctx context.Context) (waits string, err error) {
		d.disconnect(h) // it may have ended without a word
		switch _, now := d.reach(ctx, h, ""); {
		case now.Unreachable != "":
			return "ssh: " + now.Unreachable, nil
		case now.BootID == o.BootID:
			return "it has not rebooted yet", nil
		}
		return "", nil
	}
	err = wait(ctx, h.Name, d.GateTimeout, d.Pause, back, func(phase, detail string) { say("rebooting, "+phase, detail) })
	return diag.WithHint(err, "its console shows whether it comes up; then: k3splan deploy "+h.Name)
}

// Rebooter carries out the steps of a rollout that reboots hosts and deploys nothing. The judge is
// before each of them, and the gate of a deployment behind.
type Rebooter struct{ *Driver }

var _ Steps = Rebooter{}

// Apply reboots the host. The system that is to run is what it boots by default.
func (r Rebooter) Apply(ctx context.Context, host string, _ Work, say Say) (string, error) {
	if err := r.reboot(ctx, r.Before.Plan.Host(host), say); err != nil {
		return "", err
	}
	return r.Before.Observed[host].Profile, nil
}

// Record writes nothing: what was deployed is the same as before.
func (r Rebooter) Record(context.Context, string, string) error { return nil }
