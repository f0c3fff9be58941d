// Package edit changes the tables of a project in place: rows are added, removed and renamed. In CSV
// files everything else keeps its bytes, with comments, order, separators, quotes, line ends and encoding;
// in a workbook everything else keeps its values and formats.
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

// Edit is a change of a project that is not written yet. One of the methods named after the commands makes
// the change; after an error the Edit must not be used any more.
type Edit struct {
	fsys fs.FS
	// originals are the files with the tables as they were read
	originals  map[string][]byte
	hosts, k3s grid
	// checks is nil if the plan has no such table
	checks grid
	// book holds all tables if the plan is a workbook
	book *workbook
	plan *plan.Plan
	// before are the problems that the plan already had
	before diag.Problems
	// found are problems of the change itself
	found diag.Problems
	// added is the place of a new row, and the hints about its cells by column
	added struct {
		table string
		line  int
		hints map[string]string
	}
	// known is the changed file of known hosts; nil if it does not change
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

// Open reads the tables of a project. Errors of the plan's meaning do not matter here: Result looks for
// them once the change is made.
func Open(fsys fs.FS) (*Edit, error) {
	e := &Edit{originals: map[string][]byte{}}
	open := e.openFiles
	if _, err := fs.Stat(fsys, plan.WorkbookFile); err == nil {
		open = e.openWorkbook
	}
	if err := open(fsys); err != nil {
		return nil, err
	}
	// read once: what another program writes in the meantime does not count
	e.fsys = overlay{fsys, e.originals}
	e.plan, e.before = plan.Load(e.fsys)
	return e, e.openVault()
}

func (e *Edit) openFiles(fsys fs.FS) error {
	var problems diag.Problems
	for file, to := range map[string]*grid{plan.HostsFile: &e.hosts, plan.K3sFile: &e.k3s, plan.ChecksFile: &e.checks} {
		if _, err := fs.Stat(fsys, file); file == plan.ChecksFile && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		t, err := open(fsys, file)
		var invalid *Invalid
		switch {
		case errors.As(err, &invalid):
			problems = append(problems, invalid.Problems...)
			continue
		case err != nil:
			return err
		}
		*to, e.originals[file] = t, t.original()
	}
	if len(problems) > 0 {
		problems.Sort()
		return &Invalid{problems, true}
	}
	return nil
}

func (e *Edit) openWorkbook(fsys fs.FS) (err error) {
	if e.book, err = openWorkbook(fsys); err != nil {
		return err
	}
	e.originals[plan.WorkbookFile] = e.book.data
	e.hosts, e.k3s = e.book.hosts, e.book.k3s
	if e.book.checks != nil {
		e.checks = e.book.checks
	}
	return nil
}

// Files are the tables that have changed, and what follows them, by their names.
func (e *Edit) Files() map[string][]byte {
	files := map[string][]byte{}
	for _, t := range e.tables() {
		switch t := t.(type) {
		case *csvTable:
			if t.changed() {
				files[t.File] = t.bytes()
			}
		case *sheet:
			if t.changed() {
				files[plan.WorkbookFile] = e.book.data
			}
		}
	}
	if e.known != nil {
		files[remote.KnownHostsFile] = e.known
	}
	return files
}

// Before is the plan as it was when the project was opened, with its problems.
func (e *Edit) Before() (*plan.Plan, diag.Problems) { return e.plan, e.before }

// Result is the plan after the change, with the problems that it did not have before. With any error the
// change must not be written: then the error is an *Invalid, or a *Refused.
func (e *Edit) Result() (*plan.Plan, diag.Problems, error) {
	p, problems := plan.Load(overlay{e.fsys, e.Files()})
	problems = append(problems, e.found...)
	for i, problem := range problems {
		if hint := e.added.hints[problem.Column]; hint != "" && problem.Table() == e.added.table && problem.Line == e.added.line {
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
		if e.exists(move.To) && !e.same(move) {
			return p, fresh, refuse(fmt.Sprintf("%s would become %s, which already exists", move.From, move.To), "rename or delete one of the two")
		}
	}
	return p, fresh, nil
}

// lineOf matches the lines and cells in messages, which change with the rows above.
var lineOf = regexp.MustCompile(`(?::|![A-Z]+)[0-9]+\b`)

// fresh returns the problems that were not there before.
func (e *Edit) fresh(problems diag.Problems) diag.Problems {
	key := func(p diag.Problem) diag.Problem {
		p.File, p.Line, p.Hint, p.Message = p.Table(), 0, "", lineOf.ReplaceAllString(p.Message, "")
		return p
	}
	known := map[diag.Problem]bool{}
	for _, p := range e.before {
		known[key(p)] = true
	}
	return slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool { return known[key(p)] })
}

// RemoveHost removes a host with its containers, or the containers that a host left behind.
func (e *Edit) RemoveHost(name string) error {
	name = strings.ToLower(name)
	host, containers := find(e.hosts, "name", name), find(e.k3s, "host", name)
	if len(host) == 0 && len(containers) == 0 {
		return e.noHost(name)
	}
	if host := e.plan.Host(name); host != nil {
		if err := e.mayRemove(host.Containers()...); err != nil {
			return err
		}
	}
	if err := e.k3s.remove(containers); err != nil {
		return err
	}
	if err := e.hosts.remove(host); err != nil {
		return err
	}
	return e.forgetInLists(name)
}

// mayRemove refuses to take the init server away from those that join it.
func (e *Edit) mayRemove(removed ...*plan.Container) error {
	i := slices.IndexFunc(removed, func(c *plan.Container) bool { return c.Role == plan.Init })
	if i < 0 {
		return nil
	}
	left := func(all []*plan.Container) string {
		return strings.Join(plan.Names(slices.DeleteFunc(all, func(c *plan.Container) bool { return slices.Contains(removed, c) })), " ")
	}
	if servers := left(e.plan.Servers()); servers != "" {
		return refuse(fmt.Sprintf("%q is the init server, and other servers would be left without one: %s", removed[i].Name, servers),
			fmt.Sprintf("let another one take over first: type \"init\" for it and \"server\" for %q in %s, then k3splan deploy", removed[i].Name, e.k3s.name()))
	}
	if agents := left(e.plan.Agents()); agents != "" {
		return refuse(fmt.Sprintf("%q is the last server, and agents would be left without one: %s", removed[i].Name, agents), "remove them first: k3splan remove agent NAME")
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
			if err := e.mayRemove(c); err != nil {
				return err
			}
		}
	}
	for row := range e.k3s.rows() {
		isAgent := e.k3s.cell(row, "type") == string(plan.Agent)
		if isAgent == (role == plan.Agent) && (name == e.k3s.cell(row, "host") || name == e.k3s.cell(row, "name")) {
			return e.k3s.remove([]int{row})
		}
	}
	return noSuch(fmt.Sprintf("no %s is called %q, and no host with one either", role, name), name, string(role)+"s", plan.Names(all))
}

// Rename changes the name of a host, a server or an agent, wherever the tables contain it, and renames the
// user's files that are named after it. Containers keep their names when their host gets another one: a
// server's name is that of a member of etcd.
//
// A rename that was interrupted, or made by hand in the tables only, is completed: then the new name is
// already in the plan, and something still has the old one.
func (e *Edit) Rename(old, new string) error {
	old, new = strings.ToLower(old), strings.ToLower(new)
	isHost, isContainer := len(find(e.hosts, "name", old)) > 0, len(find(e.k3s, "name", old)) > 0
	isRest := !isHost && !isContainer && e.isRest(old, new)
	switch place := e.placeOf(new); {
	case !isHost && !isContainer && !isRest:
		all := append(e.plan.HostNames(), plan.Names(e.plan.Containers())...)
		return noSuch(fmt.Sprintf("no host, server or agent is called %q", old), old, "names", all)
	case old == new:
		return refuse("the old and the new name are the same", "")
	case strings.ContainsFunc(new, unicode.IsControl) || table.TrimCell(new) != new || new == "":
		return refuse(fmt.Sprintf("%q is not a name", new), "letters a-z, digits and inner hyphens, at most 63")
	case place != "" && !isRest:
		return refuse(fmt.Sprintf("the name %q is taken (%s)", new, place), "names are unique among hosts and containers")
	}
	if isHost || isRest && e.plan.Host(new) != nil {
		isHost = true
		if err := setAll(e.hosts, "name", old, new); err != nil {
			return err
		}
		if err := setAll(e.k3s, "host", old, new); err != nil {
			return err
		}
		if err := e.renameInLists(old, new); err != nil {
			return err
		}
		if err := e.renameKnown(old, new); err != nil {
			return err
		}
	}
	if err := setAll(e.k3s, "name", old, new); err != nil {
		return err
	}
	for _, file := range e.filesOf(old, isHost) {
		e.Moves = append(e.Moves, Move{file, renamed(file, old, new)})
	}
	return nil
}

// isRest reports whether only a part of a rename was made: a host or container has the new name, and
// something else still has the old one.
func (e *Edit) isRest(old, new string) bool {
	if e.plan.Host(new) == nil {
		return e.placeOf(new) != "" && len(e.filesOf(old, false)) > 0
	}
	known, _ := fs.ReadFile(e.fsys, remote.KnownHostsFile)
	return len(find(e.k3s, "host", old)) > 0 || e.isInLists(old) || len(e.filesOf(old, true)) > 0 || linesOf(old).Match(known)
}

// placeOf is the place of a host or container of the name, or "".
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

func setAll(g grid, column, old, new string) error {
	if rows := find(g, column, old); len(rows) > 0 {
		return g.set(rows, column, new)
	}
	return nil
}
