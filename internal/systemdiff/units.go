package systemdiff

import (
	"slices"
	"strings"
)

// Units is what the activation of a system does to the units of the running one. The lists are sorted.
type Units struct {
	// Restart are also those that are stopped and started again.
	Restart []string `json:"restart"`
	Stop    []string `json:"stop"`
	Start   []string `json:"start"`
	Reload  []string `json:"reload"`
	// Left are changed ones that go on as they are.
	Left []string `json:"left"`
	// Systemd reports whether systemd itself restarts, which ends nothing.
	Systemd bool `json:"systemd"`
}

// ParseUnits reads what "switch-to-configuration dry-activate" says, of every release: switch-to-configuration.pl and
// switch-to-configuration-ng have the same lines, and between them may stand what activation scripts say.
func ParseUnits(said string) Units {
	lists := map[string][]string{}
	u := Units{}
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line == "would restart systemd" {
			u.Systemd = true
		}
		for _, what := range []string{"stop the following units", "NOT stop the following changed units", "restart the following units", "start the following units", "reload the following units"} {
			if list, ok := strings.CutPrefix(line, "would "+what+": "); ok {
				for unit := range strings.SplitSeq(list, ",") {
					lists[what] = append(lists[what], strings.TrimSpace(unit))
				}
			}
		}
	}
	stopped, started := lists["stop the following units"], lists["start the following units"]
	in := func(list []string) func(string) bool {
		return func(unit string) bool { return slices.Contains(list, unit) }
	}
	u.Stop = sorted(slices.DeleteFunc(slices.Clone(stopped), in(started)))
	u.Start = sorted(slices.DeleteFunc(slices.Clone(started), in(stopped)))
	again := slices.DeleteFunc(slices.Clone(stopped), func(unit string) bool { return !in(started)(unit) })
	u.Restart = sorted(append(again, lists["restart the following units"]...))
	u.Reload = sorted(lists["reload the following units"])
	u.Left = sorted(lists["NOT stop the following changed units"])
	return u
}

// sorted is never nil, for JSON.
func sorted(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

// Lines are the units in words, a line for each thing that happens to some: "restart: a.service b.service".
func (u Units) Lines() (lines []string) {
	for _, l := range []struct {
		what  string
		units []string
	}{{"restart", u.Restart}, {"stop", u.Stop}, {"start", u.Start}, {"reload", u.Reload}, {"changed, but left running", u.Left}} {
		if len(l.units) > 0 {
			lines = append(lines, l.what+": "+strings.Join(l.units, " "))
		}
	}
	if u.Systemd {
		lines = append(lines, "systemd itself restarts")
	}
	return lines
}
