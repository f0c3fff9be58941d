package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/text"
)

// Machine is what a host says about itself to those who deploy, reboot and check it. The rows of the tables
// give the defaults of the NixOS option k3splan.machine; a snippet may set each part of it, and what NixOS
// evaluates counts. The JSON is that of the option, and of /etc/k3splan/machine.json.
type Machine struct {
	// Role is the user's word for what the host is for, or "".
	Role string `json:"role"`
	// Groups are sorted.
	Groups []string `json:"groups"`
	// RebootOrder: hosts with a lower number come first.
	RebootOrder int `json:"rebootOrder"`
	// Dependencies are the names of hosts that have to be healthy before this one reboots, sorted.
	Dependencies []string `json:"dependencies"`
	// HealthChecks are sorted by name.
	HealthChecks  []HealthCheck `json:"healthChecks"`
	Orchestration Orchestration `json:"orchestration"`
}

// Orchestration is how a host is deployed and rebooted.
type Orchestration struct {
	Strategy Strategy `json:"deployStrategy"`
	// RebootDelay is waited before the host reboots, in seconds, unless it is the first one.
	RebootDelay int         `json:"rebootDelay"`
	Criticality Criticality `json:"criticalityLevel"`
}

// Strategy is how the hosts of a group are to be deployed. Nothing acts on it yet.
type Strategy string

const (
	// Rolling: one after the other, each behind its gate.
	Rolling Strategy = "rolling"
	// Recreate: all hosts of the group at once. No host with a server has it.
	Recreate Strategy = "recreate"
	// BlueGreen: the new system has to prove itself before it becomes the default of the next boot.
	BlueGreen Strategy = "blue-green"
)

// Criticality is how much depends on a host.
type Criticality string

const (
	Low    Criticality = "low"
	Medium Criticality = "medium"
	High   Criticality = "high"
	// Critical hosts never reboot together with others.
	Critical Criticality = "critical"
)

const (
	// DefaultRebootOrder is the RebootOrder of hosts that say none.
	DefaultRebootOrder = 100
	// DefaultRebootDelay is the RebootDelay of hosts that say none, in seconds.
	DefaultRebootDelay = 600
	// DefaultCheckTimeout is the timeout of checks that say none, in seconds.
	DefaultCheckTimeout = 10

	maxRebootOrder  = 1_000_000
	maxRebootDelay  = 24 * 60 * 60
	maxCheckTimeout = 60 * 60
	maxWordRunes    = 64
)

var (
	strategies    = []string{string(Rolling), string(Recreate), string(BlueGreen)}
	criticalities = []string{string(Low), string(Medium), string(High), string(Critical)}
)

// Strategies are all strategies.
func Strategies() []string { return slices.Clone(strategies) }

// Criticalities are all levels, the lowest first.
func Criticalities() []string { return slices.Clone(criticalities) }

// defaultMachine is what a host without any of the columns says.
func defaultMachine() Machine {
	return Machine{
		Groups: []string{}, RebootOrder: DefaultRebootOrder, Dependencies: []string{}, HealthChecks: []HealthCheck{},
		Orchestration: Orchestration{Strategy: Rolling, RebootDelay: DefaultRebootDelay, Criticality: Medium},
	}
}

// readMachine reads the columns about how a host is deployed, rebooted and checked. Dependencies are checked
// when all hosts are known.
func (l *loader) readMachine(r row, host *Host, cells hostCells) {
	m := defaultMachine()
	if m.Role = cells.Role; m.Role != "" {
		r.check("role", checkWords(m.Role, "role-invalid", "role"))
	}
	for _, group := range SplitList(cells.Groups) {
		if wrong := checkGroup(group); wrong != nil {
			r.Fail("groups", group, wrong.code, wrong.message, wrong.hint)
			continue
		}
		m.Groups = append(m.Groups, group)
	}
	m.Groups = sortedSet(m.Groups)
	m.Dependencies = sortedSet(SplitList(cells.DependsOn))
	number := func(column, cell string, least, most, standard int, hint string) int {
		if cell == "" {
			return standard
		}
		n, err := strconv.Atoi(cell)
		if err == nil && n >= least && n <= most {
			return n
		}
		if seconds := inSeconds(cell); err != nil && seconds >= least && seconds <= most && column == "reboot_delay" {
			hint = fmt.Sprintf("write %d", seconds)
		}
		r.Fail(column, r.Raw(column), "number-invalid", fmt.Sprintf("not a whole number from %d to %d", least, most), hint)
		return standard
	}
	m.RebootOrder = number("reboot_order", cells.RebootOrder, -maxRebootOrder, maxRebootOrder, DefaultRebootOrder,
		fmt.Sprintf("hosts with a lower number reboot first; an empty cell means %d", DefaultRebootOrder))
	m.Orchestration.RebootDelay = number("reboot_delay", cells.RebootDelay, 0, maxRebootDelay, DefaultRebootDelay,
		fmt.Sprintf("seconds; an empty cell means %d", DefaultRebootDelay))
	word := func(column, cell string, known []string, code, what string) string {
		if cell != "" && !slices.Contains(known, cell) {
			r.Fail(column, r.Raw(column), code, "unknown "+what, cmp.Or(diag.DidYouMean(cell, known), strings.Join(known, ", ")))
			return ""
		}
		return cell
	}
	m.Orchestration.Strategy = Strategy(cmp.Or(word("strategy", strategyWord(cells.Strategy), strategies, "strategy-unknown", "strategy"), string(Rolling)))
	m.Orchestration.Criticality = Criticality(cmp.Or(word("criticality", cells.Criticality, criticalities, "criticality-unknown", "level"), string(Medium)))
	host.Machine = m
}

// strategyWord takes the usual ways to write blue-green for it.
func strategyWord(cell string) string {
	if compact := strings.NewReplacer("_", "", "-", "", " ", "", "/", "").Replace(cell); compact == "bluegreen" {
		return string(BlueGreen)
	}
	return cell
}

// inSeconds returns the seconds of a text like "30s", "10 min" or "1h", or -1.
func inSeconds(text string) int {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.Atoi(digits)
	unit := map[string]int{"s": 1, "sec": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600, "hours": 3600}[strings.TrimSpace(text[len(digits):])]
	if err != nil || unit == 0 || n < 0 || n > maxRebootDelay {
		return -1
	}
	return n * unit
}

func sortedSet(words []string) []string {
	words = slices.Clone(words)
	slices.Sort(words)
	return append([]string{}, slices.Compact(words)...)
}

// checkWords refuses a text that is not a short line that can be printed.
func checkWords(text, code, what string) *finding {
	if !isPrintable(text) || len([]rune(text)) > maxWordRunes {
		return &finding{code, "not a " + what, fmt.Sprintf("a word or a few, in one line of at most %d characters", maxWordRunes)}
	}
	return nil
}

func checkGroup(group string) *finding {
	if tagForm.MatchString(group) {
		return nil
	}
	hint := "several are separated by blanks or commas"
	if strings.HasPrefix(group, "@") {
		hint = "without the @, which is for tags on command lines"
	}
	return &finding{"group-invalid", "not a group: letters a-z, digits, and . _ - inside", hint}
}

// checkMachines checks what the hosts' rows say about each other and about their containers.
func (l *loader) checkMachines() {
	names := l.plan.HostNames()
	unknown := 0
	for _, host := range l.plan.Hosts {
		m := &host.Machine
		m.Dependencies = slices.DeleteFunc(m.Dependencies, func(name string) bool {
			switch {
			case name == host.Name:
				host.row.Fail("depends_on", name, "dependency-self", "the host depends on itself", "delete the name")
			case l.plan.byName[name] != nil:
				return false
			case !l.hosts.Complete: // it may be in a row that could not be read
			default:
				hint := ""
				if unknown++; unknown <= maxHints {
					hint = l.dependencyHint(name, names)
				}
				host.row.Fail("depends_on", name, "dependency-unknown", "no host of this name in "+l.hosts.File, cmp.Or(hint, "add it there, or correct the name"))
			}
			return true
		})
		switch strategy := m.Orchestration.Strategy; {
		case strategy == Recreate && host.Server != nil:
			host.row.Fail("strategy", string(Recreate), "strategy-refused",
				fmt.Sprintf("the host has the server %q, and all hosts of a group at once could cost etcd its quorum", host.Server.Name), `write "rolling"`)
		case strategy != Rolling:
			host.row.Warn("strategy", string(strategy), "strategy-ignored",
				"`k3splan deploy` does not act on strategies yet: the host is deployed as with \"rolling\"", "do not rely on it: leave the cell empty")
		}
	}
	for _, cycle := range Cycles(l.plan.Hosts, func(h *Host) []string { return h.Machine.Dependencies }) {
		host := l.plan.byName[cycle[0]]
		host.row.Fail("depends_on", cycle[1], "dependency-cycle", "the hosts wait for each other: "+strings.Join(cycle, " → "),
			"take one of the dependencies away")
	}
}

// dependencyHint returns what a name that is not a host's may mean, or "".
func (l *loader) dependencyHint(name string, hosts []string) string {
	if strings.HasPrefix(name, "@") || strings.ContainsAny(name, "*?") {
		return "write the names of hosts, separated by blanks or commas"
	}
	for _, c := range l.plan.Containers() {
		if c.Name == name {
			return fmt.Sprintf("did you mean its host, %q?", c.Host.Name)
		}
	}
	return diag.DidYouMean(name, hosts)
}

// Cycles returns the ways in which hosts depend on themselves by others: lists of names whose first and last
// are the same, which begin with the name that comes first in the alphabet. Each cycle that is found by
// following the dependencies in their order is returned once; without its dependencies there is none.
// Dependencies on hosts that are not in the list, or of a host on itself, do not count.
func Cycles(hosts []*Host, dependencies func(*Host) []string) (cycles [][]string) {
	byName := make(map[string]*Host, len(hosts))
	for _, host := range hosts {
		byName[host.Name] = host
	}
	const (
		open = 1 + iota
		done
	)
	state := make(map[string]int, len(hosts))
	seen := map[string]bool{}
	var path []string
	// a stack of its own: a chain may be as long as the plan
	type frame struct {
		name string
		left []string
	}
	for _, host := range hosts {
		if state[host.Name] != 0 {
			continue
		}
		stack := []frame{{host.Name, dependencies(host)}}
		state[host.Name], path = open, append(path[:0], host.Name)
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if len(top.left) == 0 {
				state[top.name] = done
				stack, path = stack[:len(stack)-1], path[:len(path)-1]
				continue
			}
			next := top.left[0]
			top.left = top.left[1:]
			switch {
			case byName[next] == nil || next == top.name || state[next] == done:
			case state[next] == open:
				cycle := slices.Clone(path[slices.Index(path, next):])
				least := slices.Index(cycle, slices.Min(cycle))
				cycle = append(slices.Concat(cycle[least:], cycle[:least]), slices.Min(cycle))
				if key := strings.Join(cycle, " "); !seen[key] {
					seen[key] = true
					cycles = append(cycles, cycle)
				}
			default:
				state[next], path = open, append(path, next)
				stack = append(stack, frame{next, dependencies(byName[next])})
			}
		}
	}
	return cycles
}

// machineFromModel reads what Host.Model wrote. Older models have none of it, or a text from a column of the
// user's own with the same name, which says nothing.
func machineFromModel(cells map[string]json.RawMessage) Machine {
	m := defaultMachine()
	into := map[string]any{
		"role": &m.Role, "groups": &m.Groups, "reboot_order": &m.RebootOrder, "depends_on": &m.Dependencies, "checks": &m.HealthChecks,
		"strategy": &m.Orchestration.Strategy, "reboot_delay": &m.Orchestration.RebootDelay, "criticality": &m.Orchestration.Criticality,
	}
	for _, key := range machineKeys {
		if cell, has := cells[key]; has {
			_ = json.Unmarshal(cell, into[key])
		}
	}
	return m
}

// machineKeys are the keys of Host.Model with the Machine.
var machineKeys = []string{"role", "groups", "reboot_order", "depends_on", "strategy", "reboot_delay", "criticality", "checks"}

func (m Machine) model(into map[string]any) {
	into["role"], into["groups"], into["reboot_order"], into["depends_on"] = m.Role, text.OrEmpty(m.Groups), m.RebootOrder, text.OrEmpty(m.Dependencies)
	into["strategy"], into["reboot_delay"], into["criticality"] = string(m.Orchestration.Strategy), m.Orchestration.RebootDelay, string(m.Orchestration.Criticality)
	checks := make([]any, len(m.HealthChecks))
	for i, check := range m.HealthChecks {
		checks[i] = check.model()
	}
	into["checks"] = checks
}
