package edit

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/plan"
)

// Edit is a change of a project that is not written yet. Its methods can be called one after
// another; after an error it is good for nothing.
type Edit struct {
	fsys       fs.FS
	hosts, k3s *table
	plan       *plan.Plan
	// known is the changed file of known hosts; nil if it stays as it is
	known, knownBefore []byte
	// Moves are the user's files that follow a new name.
	Moves []Move
}

// Move is a file of the user that gets another name; both are relative to the project.
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Open reads the tables of a project. Errors of the plan's meaning do not matter here: Result looks
// for them when the change is made.
func Open(fsys fs.FS) (*Edit, error) {
	if _, err := fs.Stat(fsys, plan.WorkbookFile); err == nil {
		return nil, refuse("the plan is the workbook "+plan.WorkbookFile+", which only a spreadsheet program edits without loss",
			"change it there, then: k3splan validate")
	}
	e := &Edit{fsys: fsys}
	var problems plan.Problems
	for file, to := range map[string]**table{plan.HostsFile: &e.hosts, plan.K3sFile: &e.k3s} {
		t, err := open(fsys, file)
		var invalid *Invalid
		switch {
		case errors.As(err, &invalid):
			problems = append(problems, invalid.Problems...)
		case err != nil:
			return nil, err
		}
		*to = t
	}
	if len(problems) > 0 {
		problems.Sort()
		return nil, &Invalid{problems}
	}
	e.plan, _ = plan.Load(fsys)
	return e, nil
}

// Files are the tables that have changed, and what follows them, by their names.
func (e *Edit) Files() map[string][]byte {
	files := map[string][]byte{}
	for _, t := range []*table{e.hosts, e.k3s} {
		if t.changed() {
			files[t.File] = t.bytes()
		}
	}
	if e.known != nil {
		files[knownHosts] = e.known
	}
	return files
}

// Original is the content of one of Files before the change.
func (e *Edit) Original(file string) []byte {
	switch file {
	case plan.HostsFile:
		return e.hosts.original
	case plan.K3sFile:
		return e.k3s.original
	}
	return e.knownBefore
}

// Before is the plan as it was when the project was opened.
func (e *Edit) Before() *plan.Plan { return e.plan }

// Result is the plan after the change. With an error among its problems the change must not be
// written: then the error is an *Invalid.
func (e *Edit) Result() (*plan.Plan, plan.Problems, error) {
	p, problems := plan.Load(overlay{e.fsys, e.Files()})
	if problems.Errors() > 0 {
		return p, problems, &Invalid{problems}
	}
	return p, problems, nil
}

// AddHost adds a row to hosts.csv. What is left out is chosen: the address is the next free one,
// interface and admin are what all hosts have in common.
func (e *Edit) AddHost(cells map[string]string) error {
	cells = maps.Clone(cells)
	name := strings.ToLower(cells["name"])
	cells["name"] = name
	if e.plan.Host(name) != nil {
		return refuse(fmt.Sprintf("there is a host %q already (%s)", name, e.plan.Host(name).Place), "")
	}
	if cells["interface"] == "" {
		interfaces := distinct(e.plan.Hosts, func(h *plan.Host) string { return h.Interface })
		if len(interfaces) != 1 {
			return refuse("which network interface does the host have?", hintChoice("--interface NAME", interfaces))
		}
		cells["interface"] = interfaces[0]
	}
	if cells["admin"] == "" {
		admins := distinct(e.plan.Hosts, func(h *plan.Host) string { return h.Admin })
		switch {
		case len(admins) == 1:
			cells["admin"] = admins[0]
		case len(admins) > 1 && !slices.ContainsFunc(e.plan.Hosts, func(h *plan.Host) bool { return h.Admin != h.Name }):
			cells["admin"] = name // each machine has an admin of its own name
		default:
			return refuse("who looks after the host?", hintChoice("--admin LOGIN", admins))
		}
	}
	if err := e.chooseAddress(cells, ""); err != nil {
		return err
	}
	return e.add(e.hosts, e.hosts.records[len(e.hosts.records)-1], cells)
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

// AddContainer adds a row to k3s.csv for a server or an agent. The first server of a plan becomes
// the init server. Name and address are chosen if they are left out.
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
	if present != nil {
		return refuse(fmt.Sprintf("host %q has %q already (%s)", name, present.Name, present.Place), "a host has at most one server and one agent")
	}
	if !isAgent && len(same) == 0 {
		role = plan.Init
	}
	cells["type"] = string(role)
	cells["name"] = cmp.Or(cells["name"], name+suffix(same, isAgent))
	if err := e.chooseAddress(cells, role); err != nil {
		return err
	}
	return e.add(e.k3s, e.neighbour(name, isAgent), cells)
}

func (e *Edit) noHost(name string) error {
	hint := "the hosts are: " + strings.Join(e.plan.HostNames(), " ")
	if nearest := plan.Nearest(name, e.plan.HostNames()); nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", nearest)
	}
	return refuse(fmt.Sprintf("there is no host %q in the plan", name), hint)
}

// suffix is what most containers of a kind add to the names of their hosts.
func suffix(containers []*plan.Container, isAgent bool) string {
	best := "-k3s-server"
	if isAgent {
		best = "-k3s-agent"
	}
	count := map[string]int{}
	for _, c := range containers {
		if end, ok := strings.CutPrefix(c.Name, c.Host.Name); ok && end != "" {
			count[end]++
			if count[end] > count[best] {
				best = end
			}
		}
	}
	return best
}

// neighbour is the record below which a new container stands: the last of its kind where servers
// and agents stand apart; else the host's other one where those stand together; else the last.
func (e *Edit) neighbour(host string, isAgent bool) record {
	rows := e.k3s.rows()
	last := e.k3s.records[len(e.k3s.records)-1]
	agent := func(r record) bool { return e.k3s.cell(r, "type") == string(plan.Agent) }
	changes, lastOfKind := 0, -1
	for i, r := range rows {
		if i > 0 && agent(r) != agent(rows[i-1]) {
			changes++
		}
		if agent(r) == isAgent {
			lastOfKind = i
		}
	}
	if changes <= 1 && lastOfKind >= 0 {
		return rows[lastOfKind]
	}
	if of := e.k3s.find("host", host); len(of) > 0 {
		return of[len(of)-1]
	}
	return last
}

func (e *Edit) add(t *table, after record, cells map[string]string) error {
	for _, column := range slices.Sorted(maps.Keys(cells)) {
		value := cells[column]
		if value != "" && !t.has(column) {
			return refuse(fmt.Sprintf("%s has no column %q", t.File, column), fmt.Sprintf("add it to the header, or leave out %q", value))
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return refuse(fmt.Sprintf("there is a line break or another control character in the value of %s", column), "")
		}
	}
	return t.insert(after, cells)
}

// chooseAddress fills in an address that is left out: the plan's next one for a server or agent, or
// with no role for a host.
func (e *Edit) chooseAddress(cells map[string]string, role plan.Role) error {
	if cells["ip"] != "" {
		return nil
	}
	addresses := e.plan.Network.AddressRange
	if !addresses.First.IsValid() {
		_, problems := plan.Load(e.fsys)
		return &Invalid{problems}
	}
	next := e.plan.NextAddress(role)
	if !next.IsValid() {
		return refuse(fmt.Sprintf("there is no free address in %s", addresses), "address_range in plans/network.yaml sets the range; --ip names an address")
	}
	cells["ip"] = next.String()
	return nil
}

// RemoveHost removes a host with its containers.
func (e *Edit) RemoveHost(name string) error {
	name = strings.ToLower(name)
	if len(e.hosts.find("name", name)) == 0 {
		return e.noHost(name)
	}
	if err := removeAll(e.hosts, "name", name); err != nil {
		return err
	}
	return removeAll(e.k3s, "host", name)
}

func removeAll(t *table, column, value string) error {
	for found := t.find(column, value); len(found) > 0; found = t.find(column, value) {
		if err := t.remove(found[0]); err != nil {
			return err
		}
	}
	return nil
}

// RemoveContainer removes the server or agent of a host, named by the host or by itself.
func (e *Edit) RemoveContainer(name string, agent bool) error {
	name = strings.ToLower(name)
	kind := map[bool]string{true: "agent", false: "server"}[agent]
	var names []string
	for _, r := range e.k3s.rows() {
		if (e.k3s.cell(r, "type") == string(plan.Agent)) != agent {
			continue
		}
		host, own := e.k3s.cell(r, "host"), e.k3s.cell(r, "name")
		if name == host || name == own {
			return e.k3s.remove(r)
		}
		names = append(names, host, own)
	}
	hint := ""
	if nearest := plan.Nearest(name, names); nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", nearest)
	}
	return refuse(fmt.Sprintf("there is no %s of the name %q, and no host of the name with one", kind, name), hint)
}

// Rename gives a host, a server or an agent another name, wherever the tables tell it, and has the
// user's files that are named after it follow. Containers keep their names when their host gets
// another: a server's name is that of a member of etcd.
func (e *Edit) Rename(old, new string) error {
	old, new = strings.ToLower(old), strings.ToLower(new)
	switch {
	case old == new:
		return refuse("the old and the new name are the same", "")
	case strings.ContainsFunc(new, unicode.IsControl) || strings.TrimSpace(new) != new || new == "":
		return refuse(fmt.Sprintf("%q is not a name", new), "letters a-z, digits and inner hyphens, at most 63")
	}
	isHost := len(e.hosts.find("name", old)) > 0
	isContainer := len(e.k3s.find("name", old)) > 0
	if !isHost && !isContainer {
		names := e.plan.HostNames()
		for _, c := range slices.Concat(e.plan.Servers(), e.plan.Agents()) {
			names = append(names, c.Name)
		}
		hint := "the names are: " + strings.Join(names, " ")
		if nearest := plan.Nearest(old, names); nearest != "" {
			hint = fmt.Sprintf("did you mean %q?", nearest)
		}
		return refuse(fmt.Sprintf("there is no host, server or agent %q in the plan", old), hint)
	}
	if place := e.placeOf(new); place != "" {
		return refuse(fmt.Sprintf("the name %q is taken (%s)", new, place), "names are unique among hosts and containers")
	}
	files := e.FilesOf(old)
	if isHost {
		if err := setAll(e.hosts, "name", old, new); err != nil {
			return err
		}
		if err := setAll(e.k3s, "host", old, new); err != nil {
			return err
		}
		if err := e.renameKnown(old, new); err != nil {
			return err
		}
	}
	if err := setAll(e.k3s, "name", old, new); err != nil {
		return err
	}
	for _, file := range files {
		e.Moves = append(e.Moves, Move{file, renamed(file, old, new)})
	}
	for _, move := range e.Moves {
		if _, err := fs.Stat(e.fsys, move.To); err == nil {
			return refuse(fmt.Sprintf("%s would become %s, which exists already", move.From, move.To), "rename or delete one of the two")
		}
	}
	return nil
}

// placeOf is where a host or container of the name stands, or "".
func (e *Edit) placeOf(name string) string {
	if host := e.plan.Host(name); host != nil {
		return host.Place
	}
	for _, c := range slices.Concat(e.plan.Servers(), e.plan.Agents()) {
		if c.Name == name {
			return c.Place
		}
	}
	return ""
}

func setAll(t *table, column, old, new string) error {
	for found := t.find(column, old); len(found) > 0; found = t.find(column, old) {
		if err := t.set(found[0], column, new); err != nil {
			return err
		}
	}
	return nil
}
