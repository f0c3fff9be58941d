// Package edit changes the CSV tables of a project in place: rows are added, removed and renamed,
// and everything else keeps its bytes, with comments, order, separators, quotes, line ends and
// encoding.
package edit

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
	"k3splan/internal/table"
)

// Edit is a change of a project that is not written yet. One of the methods that are named after the
// commands makes the change; after an error the Edit is good for nothing.
type Edit struct {
	fsys       fs.FS
	hosts, k3s *csvTable
	plan       *plan.Plan
	// before are the problems that the plan has had already
	before diag.Problems
	// found are problems that the change itself has
	found diag.Problems
	// added is where a new row stands, and what to do about its cells by column
	added struct {
		file  string
		line  int
		hints map[string]string
	}
	// known is the changed file of known hosts; nil if it stays as it is
	known, knownBefore []byte
	// vault keeps secrets that are not files of the project, entries are their names by their places;
	// nil if there are none
	vault   *secrets.Vault
	entries map[string]string
	// Moves are the user's files, and secrets kept elsewhere, that follow a new name.
	Moves []Move
}

// Move is a file of the user that gets another name; both are relative to the project, or places of
// secrets that are kept elsewhere ("pass:k3splan/rack/olafpasswd").
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Open reads the tables of a project. Errors of the plan's meaning do not matter here: Result looks
// for them when the change is made.
func Open(fsys fs.FS) (*Edit, error) {
	if _, err := fs.Stat(fsys, plan.WorkbookFile); err == nil {
		return nil, refuse("the plan is the workbook "+plan.WorkbookFile+", which only a spreadsheet program edits without loss",
			"change it there, then: k3splan validate\nfree addresses: k3splan show")
	}
	e := &Edit{}
	var problems diag.Problems
	for file, to := range map[string]**csvTable{plan.HostsFile: &e.hosts, plan.K3sFile: &e.k3s} {
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
		return nil, &Invalid{problems, true}
	}
	e.fsys = overlay{fsys, map[string][]byte{plan.HostsFile: e.hosts.original(), plan.K3sFile: e.k3s.original()}}
	e.plan, e.before = plan.Load(e.fsys)
	return e, e.openVault()
}

// Files are the tables that have changed, and what follows them, by their names.
func (e *Edit) Files() map[string][]byte {
	files := map[string][]byte{}
	for _, t := range []*csvTable{e.hosts, e.k3s} {
		if t.changed() {
			files[t.File] = t.bytes()
		}
	}
	if e.known != nil {
		files[remote.KnownHostsFile] = e.known
	}
	return files
}

// Before is the plan as it was when the project was opened, with its problems.
func (e *Edit) Before() (*plan.Plan, diag.Problems) { return e.plan, e.before }

// Result is the plan after the change, with the problems that it has not had before. With any error
// the change must not be written: then the error is an *Invalid, or a *Refused.
func (e *Edit) Result() (*plan.Plan, diag.Problems, error) {
	p, problems := plan.Load(overlay{e.fsys, e.Files()})
	problems = append(problems, e.found...)
	for i, problem := range problems {
		if hint := e.added.hints[problem.Column]; hint != "" && problem.File == e.added.file && problem.Line == e.added.line {
			problems[i].Hint = hint
		}
	}
	problems.Sort()
	fresh := e.fresh(problems)
	switch {
	case e.before.Errors() == 0 && fresh.Errors() > 0:
		return p, fresh, &Invalid{fresh, false}
	case problems.Errors() > 0:
		return p, fresh, &Invalid{problems, fresh.Errors() == 0}
	}
	for _, move := range e.Moves {
		if e.exists(move.To) {
			return p, fresh, refuse(fmt.Sprintf("%s would become %s, which exists already", move.From, move.To), "rename or delete one of the two")
		}
	}
	return p, fresh, nil
}

// lineOf finds line numbers in messages, which change with the rows above.
var lineOf = regexp.MustCompile(`:[0-9]+\b`)

// fresh gives the problems that were not there before.
func (e *Edit) fresh(problems diag.Problems) diag.Problems {
	key := func(p diag.Problem) diag.Problem {
		p.Line, p.Hint, p.Message = 0, "", lineOf.ReplaceAllString(p.Message, "")
		return p
	}
	known := map[diag.Problem]bool{}
	for _, p := range e.before {
		known[key(p)] = true
	}
	return slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool { return known[key(p)] })
}

// RemoveHost removes a host with its containers.
func (e *Edit) RemoveHost(name string) error {
	name = strings.ToLower(name)
	if len(e.hosts.find("name", name)) == 0 {
		return e.noHost(name)
	}
	if host := e.plan.Host(name); host != nil {
		if err := e.mayGo(host.Containers()...); err != nil {
			return err
		}
	}
	if err := removeAll(e.hosts, "name", name); err != nil {
		return err
	}
	return removeAll(e.k3s, "host", name)
}

// mayGo refuses to take the init server away from those who join it.
func (e *Edit) mayGo(gone ...*plan.Container) error {
	i := slices.IndexFunc(gone, func(c *plan.Container) bool { return c.Role == plan.Init })
	if i < 0 {
		return nil
	}
	left := func(all []*plan.Container) string {
		return strings.Join(plan.Names(slices.DeleteFunc(all, func(c *plan.Container) bool { return slices.Contains(gone, c) })), " ")
	}
	if servers := left(e.plan.Servers()); servers != "" {
		return refuse(fmt.Sprintf("%q is the init server, and others would be left without one: %s", gone[i].Name, servers),
			fmt.Sprintf("let another one take over first: type \"init\" for it and \"server\" for %q in %s, then k3splan deploy", gone[i].Name, plan.K3sFile))
	}
	if agents := left(e.plan.Agents()); agents != "" {
		return refuse(fmt.Sprintf("%q is the last server, and agents would be left without one: %s", gone[i].Name, agents), "remove them first: k3splan remove agent NAME")
	}
	return nil
}

func removeAll(t *csvTable, column, value string) error {
	for found := t.find(column, value); len(found) > 0; found = t.find(column, value) {
		if err := t.remove(found[0]); err != nil {
			return err
		}
	}
	return nil
}

// RemoveContainer removes the server or agent of a host, named by the host or by itself.
func (e *Edit) RemoveContainer(role plan.Role, name string) error {
	name = strings.ToLower(name)
	all := e.plan.Servers()
	if role == plan.Agent {
		all = e.plan.Agents()
	}
	for _, c := range all {
		if name == c.Name || name == c.Host.Name {
			if err := e.mayGo(c); err != nil {
				return err
			}
		}
	}
	for _, r := range e.k3s.rows() {
		isAgent := e.k3s.cell(r, "type") == string(plan.Agent)
		if isAgent == (role == plan.Agent) && (name == e.k3s.cell(r, "host") || name == e.k3s.cell(r, "name")) {
			return e.k3s.remove(r)
		}
	}
	return noSuch(fmt.Sprintf("there is no %s of the name %q, and no host of the name with one", role, name), name, string(role)+"s", plan.Names(all))
}

// Rename gives a host, a server or an agent another name, wherever the tables tell it, and has the
// user's files that are named after it follow. Containers keep their names when their host gets
// another: a server's name is that of a member of etcd.
func (e *Edit) Rename(old, new string) error {
	old, new = strings.ToLower(old), strings.ToLower(new)
	isHost := len(e.hosts.find("name", old)) > 0
	isContainer := len(e.k3s.find("name", old)) > 0
	switch place := e.placeOf(new); {
	case !isHost && !isContainer:
		all := append(e.plan.HostNames(), plan.Names(e.plan.Containers())...)
		return noSuch(fmt.Sprintf("there is no host, server or agent %q in the plan", old), old, "names", all)
	case old == new:
		return refuse("the old and the new name are the same", "")
	case strings.ContainsFunc(new, unicode.IsControl) || table.TrimCell(new) != new || new == "":
		return refuse(fmt.Sprintf("%q is not a name", new), "letters a-z, digits and inner hyphens, at most 63")
	case place != "":
		return refuse(fmt.Sprintf("the name %q is taken (%s)", new, place), "names are unique among hosts and containers")
	}
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
	for _, file := range e.filesOf(e.plan, old) {
		e.Moves = append(e.Moves, Move{file, renamed(file, old, new)})
	}
	return nil
}

// placeOf is where a host or container of the name stands, or "".
func (e *Edit) placeOf(name string) string {
	if host := e.plan.Host(name); host != nil {
		return host.Place
	}
	for _, c := range e.plan.Containers() {
		if c.Name == name {
			return c.Place
		}
	}
	return ""
}

func setAll(t *csvTable, column, old, new string) error {
	for found := t.find(column, old); len(found) > 0; found = t.find(column, old) {
		if err := t.set(found[0], column, new); err != nil {
			return err
		}
	}
	return nil
}
