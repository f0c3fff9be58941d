// Package colmena has what is particular to Colmena: the arguments that it is called with, the Colmena to
// run, and a path for the hive that it can take.
package colmena

import (
	"slices"
	"strings"
)

// Selection is what a Colmena command is for. The zero Selection selects no host.
type Selection struct {
	// All selects every node of the hive; Hosts is then not looked at.
	All bool
	// Hosts are the nodes' names.
	Hosts []string
	// Servers is how many of the selected hosts have a k3s server.
	Servers int
}

// Build returns the arguments that build the selected hosts' systems. hive is the path of the hive's
// file; extra are the user's own arguments, which Colmena gets as they are.
func Build(hive string, selection Selection, extra []string) []string {
	return deployment("build", hive, selection, extra)
}

// Apply returns the arguments that deploy to the selected hosts by ssh; Colmena skips hosts that
// have no target. The goal ("switch", if nothing is said) is one of the user's arguments.
func Apply(hive string, selection Selection, extra []string) []string {
	return deployment("apply", hive, selection, extra)
}

// ApplyLocal returns the arguments that deploy one node to this machine, which must run NixOS. Of the
// user's own arguments those are left out that only "apply" takes: they are about other hosts.
func ApplyLocal(hive, node string, extra []string) []string {
	return append([]string{"apply-local", "-f", hive, "--node", node, "--sudo"}, forLocal(extra)...)
}

// Options of "colmena apply" that "colmena apply-local" refuses (src/command/apply.rs).
var (
	applyValues = []string{"--parallel", "-p", "--on", "--eval-node-limit", "--evaluator"}
	applyFlags  = []string{
		"--keep-result", "--no-substitute", "--no-substitutes", "--no-gzip", "--build-on-target", "--no-build-on-target",
		"--force-replace-unknown-profiles", "--reboot",
	}
)

func forLocal(extra []string) (kept []string) {
	for i := 0; i < len(extra); i++ {
		name, _, joined := strings.Cut(extra[i], "=")
		switch {
		case slices.Contains(applyFlags, name):
		case slices.Contains(applyValues, name):
			if !joined {
				i++ // its value
			}
		case strings.HasPrefix(name, "-p") && !strings.HasPrefix(name, "--"):
		default:
			kept = append(kept, extra[i])
		}
	}
	return kept
}

func deployment(command, hive string, selection Selection, extra []string) []string {
	args := []string{command, "-f", hive}
	if !selection.All {
		// without a name this is a filter that matches nothing, which Colmena allows
		args = append(args, "--on", strings.Join(selection.Hosts, ","))
	}
	// Each server is a member of etcd. By default Colmena treats ten hosts at a time, and two that
	// restart together can cost the quorum.
	if _, isSet := Parallel(extra); selection.Servers > 1 && !isSet {
		args = append(args, "--parallel", "1")
	}
	return append(args, extra...)
}

// Parallel returns the value of Colmena's -p or --parallel among the user's arguments, which it does not
// accept twice. All four spellings count, and -p behind flags without a value ("-vp3").
func Parallel(args []string) (value string, isSet bool) {
	for i, arg := range args {
		name, joined, hasValue := strings.Cut(arg, "=")
		short, isShort := strings.CutPrefix(strings.TrimLeft(arg, "-vh"), "p")
		isShort = isShort && strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--")
		switch {
		case arg == "--":
			return "", false
		case name == "--parallel" && hasValue:
			return joined, true
		case isShort && short != "":
			return strings.TrimPrefix(short, "="), true
		case (isShort || name == "--parallel") && i+1 < len(args):
			return args[i+1], true
		case isShort || name == "--parallel":
			return "", true
		}
	}
	return "", false
}

// UploadKeys returns the arguments that replace the secrets of one host and nothing else.
func UploadKeys(hive, host string, extra []string) []string {
	return append([]string{"upload-keys", "-f", hive, "--on", host}, extra...)
}

// WithGoal returns the user's arguments for "colmena apply" with another goal.
func WithGoal(extra []string, goal string) []string {
	kept := []string{goal}
	for i := 0; i < len(extra); i++ {
		if extra[i] == "--reboot" || slices.Contains(goals, extra[i]) {
			continue
		}
		n := values[extra[i]]
		kept = append(kept, extra[i:min(i+n+1, len(extra))]...)
		i += n
	}
	return kept
}

// ApplyOne returns the arguments that deploy to one host by ssh and leave a link to its system at
// ResultLink.
func ApplyOne(hive, host string, extra []string) []string {
	return append([]string{"apply", "-f", hive, "--on", host, "--keep-result"}, extra...)
}

// BuildFirst returns the arguments that build the systems of hosts, touch none of them, and leave a link to
// each system as ApplyOne does. Of extra, the
// user's arguments for "colmena apply", those are left out that decide what becomes of the systems.
func BuildFirst(hive string, hosts, extra []string) []string {
	afterwards := []string{"switch", "boot", "--reboot", "--keep-result"}
	kept := slices.DeleteFunc(slices.Clone(extra), func(arg string) bool { return slices.Contains(afterwards, arg) })
	return append([]string{"build", "-f", hive, "--on", strings.Join(hosts, ","), "--keep-result"}, kept...)
}

// goals are the goals of "colmena apply" (src/command/apply.rs); switch is its default.
var goals = []string{"build", "push", "switch", "boot", "test", "dry-activate", "keys", "upload-keys"}

// Goal returns what "colmena apply" does with the user's arguments. --reboot is a goal of its own: the
// new system runs afterwards, by way of the goal boot.
func Goal(extra []string) string {
	if slices.Contains(extra, "--reboot") {
		return "reboot"
	}
	for i := 0; i < len(extra); i++ {
		if slices.Contains(goals, extra[i]) {
			return extra[i]
		}
		i += values[extra[i]] // which may be called like a goal
	}
	return "switch"
}

// values are the options of "colmena apply" with values of their own, and how many.
var values = map[string]int{
	"--parallel": 1, "-p": 1, "--on": 1, "--eval-node-limit": 1, "--evaluator": 1, "-f": 1, "--config": 1, "--color": 1, "--nix-option": 2,
}

// IsActivated reports whether the new system runs on the hosts after a goal, so that containers may have
// restarted.
func IsActivated(goal string) bool { return goal == "switch" || goal == "test" || goal == "reboot" }

// IsKept reports whether the new system is that of the hosts after a goal, also after their next boot.
func IsKept(goal string) bool { return goal == "switch" || goal == "reboot" }

// ChangesSystems reports whether a goal brings a new system to the hosts, and not their secrets alone.
func ChangesSystems(goal string) bool {
	return ChangesHosts(goal) && goal != "keys" && goal != "upload-keys"
}

// ChangesHosts reports whether a goal changes anything on the hosts that matters there.
func ChangesHosts(goal string) bool {
	return goal != "build" && goal != "push" && goal != "dry-activate"
}

// NixOptions returns what of the user's arguments is for Nix itself, as Nix takes it.
func NixOptions(extra []string) (options []string) {
	for i := 0; i < len(extra); i++ {
		if extra[i] == "--nix-option" && i+2 < len(extra) {
			options = append(options, "--option", extra[i+1], extra[i+2])
		}
		i += values[extra[i]]
	}
	return options
}

// BuildsOnTarget returns whether a system is built on its host, which the user's arguments can say for all of them.
func BuildsOnTarget(extra []string, configured bool) bool {
	switch {
	case slices.Contains(extra, "--build-on-target"):
		return true
	case slices.Contains(extra, "--no-build-on-target"):
		return false
	default:
		return configured
	}
}
