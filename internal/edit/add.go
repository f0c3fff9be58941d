package edit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// AddHost adds a row to the table of hosts. Values that are left out are chosen: the address is the next free one,
// interface and admin are what all hosts have in common.
func (e *Edit) AddHost(cells map[string]string) error {
	cells = maps.Clone(cells)
	name := strings.ToLower(cells["name"])
	cells["name"] = name
	if host := e.plan.Host(name); host != nil {
		return refuse(fmt.Sprintf("the host %q already exists (%s)", name, host.Place), "k3splan show host "+name)
	}
	interfaces := distinct(e.plan.Hosts, func(h *plan.Host) string { return h.Interface })
	admins := distinct(e.plan.Hosts, func(h *plan.Host) string { return h.Admin })
	if cells["interface"] == "" && len(interfaces) == 1 {
		cells["interface"] = interfaces[0]
	}
	if cells["admin"] == "" && len(admins) == 1 {
		cells["admin"] = admins[0]
	}
	if cells["admin"] == "" && len(admins) > 1 && !slices.ContainsFunc(e.plan.Hosts, func(h *plan.Host) bool { return h.Admin != h.Name }) {
		cells["admin"] = name // each machine has an admin of its own name
	}
	hints := map[string]string{}
	if cells["interface"] == "" {
		hints["interface"] = hintChoice("--interface NAME", interfaces)
	}
	if cells["admin"] == "" {
		hints["admin"] = hintChoice("--admin LOGIN", admins)
	}
	if err := e.chooseAddress(cells, ""); err != nil {
		return err
	}
	return e.add(e.hosts, e.hosts.rows()-1, cells, hints)
}

func distinct(hosts []*plan.Host, of func(*plan.Host) string) []string {
	var values []string
	for _, host := range hosts {
		if value := of(host); value != "" {
			values = append(values, value)
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

func hintChoice(flag string, used []string) string {
	if len(used) == 0 || len(used) > 8 {
		return flag
	}
	return flag + "; the plan has " + strings.Join(used, ", ")
}

// AddContainer adds a row for a server or an agent to the table of containers. The first server of a plan
// becomes the init server. Name and address are chosen if they are left out.
func (e *Edit) AddContainer(role plan.Role, cells map[string]string) error {
	cells = maps.Clone(cells)
	name := strings.ToLower(cells["host"])
	cells["host"] = name
	host := e.plan.Host(name)
	if host == nil {
		return e.noHost(name)
	}
	isAgent := role == plan.Agent
	present, same := host.Server, e.plan.Servers()
	if isAgent {
		present, same = host.Agent, e.plan.Agents()
	}
	switch servers := e.plan.Servers(); {
	case present != nil:
		return refuse(fmt.Sprintf("host %q already has %q (%s)", name, present.Name, present.Place), "a host has at most one server and one agent")
	case isAgent && len(servers) == 0 && e.plan.Complete:
		return refuse("the plan has no server that an agent could join", "add the first one: k3splan add server HOST")
	case !isAgent && len(servers) == 0:
		role = plan.Init
	}
	cells["type"] = string(role)
	hints := map[string]string{}
	if cells["name"] == "" {
		const hint = "choose another name with --name"
		cells["name"], hints["name"] = nameFor(name, same, isAgent), hint
		if place := e.placeOf(cells["name"]); place != "" {
			return refuse(fmt.Sprintf("the name %q is taken (%s)", cells["name"], place), hint)
		}
	}
	if err := e.chooseAddress(cells, role); err != nil {
		return err
	}
	return e.add(e.k3s, e.neighbour(name, isAgent), cells, hints)
}

// nameFor returns the name of a new container: that of its host with the prefix or suffix that most
// containers of the kind have.
func nameFor(host string, same []*plan.Container, isAgent bool) string {
	type affixes struct{ prefix, suffix string }
	best := affixes{suffix: "-k3s-server"}
	if isAgent {
		best.suffix = "-k3s-agent"
	}
	count := map[affixes]int{}
	for _, c := range same {
		var found affixes
		if suffix, ok := strings.CutPrefix(c.Name, c.Host.Name+"-"); ok {
			found.suffix = "-" + suffix
		} else if prefix, ok := strings.CutSuffix(c.Name, "-"+c.Host.Name); ok {
			found.prefix = prefix + "-"
		} else {
			continue
		}
		if count[found]++; count[found] > count[best] {
			best = found
		}
	}
	return best.prefix + host + best.suffix
}

// neighbour returns the row below which a new container is added: the last of its kind where servers and
// agents are apart; else the host's other one where those are together; else the last.
func (e *Edit) neighbour(host string, isAgent bool) int {
	agent := func(row int) bool { return e.k3s.cell(row, "type") == string(plan.Agent) }
	changes, lastOfKind := 0, -1
	for row := range e.k3s.rows() {
		if row > 0 && agent(row) != agent(row-1) {
			changes++
		}
		if agent(row) == isAgent {
			lastOfKind = row
		}
	}
	if changes <= 1 && lastOfKind >= 0 {
		return lastOfKind
	}
	if of := find(e.k3s, "host", host); len(of) > 0 {
		return of[len(of)-1]
	}
	return e.k3s.rows() - 1
}

// add adds the row. hints are about cells of it that are wrong, by column. A column that k3splan knows is
// added to the table where a cell needs it; one of the user's own could be misspelt.
func (e *Edit) add(t grid, after int, cells, hints map[string]string) (err error) {
	var missing []string
	for _, column := range slices.Sorted(maps.Keys(cells)) {
		value := cells[column]
		switch {
		case value == "" || has(t, column):
		case t.knows(column):
			missing = append(missing, column)
		default:
			hint := cmp.Or(diag.DidYouMean(column, t.columns()), fmt.Sprintf("add it to the header, or leave out %q", value))
			e.found = append(e.found, diag.Problem{File: t.name(), Line: t.line(-1), Column: column, Severity: diag.Error,
				Code: "column-missing", Message: "the table has no such column", Hint: hint})
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return refuse(fmt.Sprintf("the value of %s contains a line break or another control character", column), "")
		}
	}
	for _, column := range missing {
		if err := t.addColumn(column); err != nil {
			return err
		}
	}
	e.added.table, e.added.hints = t.name(), hints
	e.added.line, err = t.insert(after, cells)
	return err
}

// chooseAddress fills in an address that is left out: the plan's next one for a server or agent, or without
// a role for a host.
func (e *Edit) chooseAddress(cells map[string]string, role plan.Role) error {
	addresses := e.plan.Network.AddressRange
	switch next := e.plan.NextAddress(role); {
	case cells["ip"] != "":
	case !addresses.First.IsValid():
		return &Invalid{e.before, true}
	case !next.IsValid():
		hint := "address_range in plans/network.yaml sets the range; --ip names an address"
		if e.plan.Network.Where("address_range") == "" {
			hint = "the subnet is full: a smaller netmask in plans/network.yaml makes it larger"
		}
		return refuse(fmt.Sprintf("there is no free address in %s", addresses), hint)
	default:
		cells["ip"] = next.String()
	}
	return nil
}
