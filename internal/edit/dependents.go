package edit

import (
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/plan"
)

// tables are those that the plan has.
func (e *Edit) tables() []grid {
	tables := []grid{e.hosts, e.k3s}
	if e.checks != nil {
		tables = append(tables, e.checks)
	}
	return tables
}

// renameInLists renames a host where cells list several: in the dependencies of others and in the table of
// checks.
func (e *Edit) renameInLists(old, new string) error {
	return e.eachList(func(cell string) (string, bool) {
		return listed.ReplaceAllStringFunc(cell, func(term string) string {
			if name := strings.TrimPrefix(term, "!"); strings.EqualFold(name, old) {
				return strings.TrimSuffix(term, name) + new
			}
			return term
		}), true
	})
}

// listed matches the parts of a cell as plan.SplitList does.
var listed = regexp.MustCompile(`[^\s,;]+`)

// isInLists reports whether a cell that lists several hosts has the name.
func (e *Edit) isInLists(name string) (is bool) {
	_ = e.eachList(func(cell string) (string, bool) {
		is = is || slices.ContainsFunc(plan.SplitList(cell), func(term string) bool {
			return strings.EqualFold(strings.TrimPrefix(term, "!"), name)
		})
		return cell, true
	})
	return is
}

// forgetInLists takes a host out of the dependencies of others and out of the table of checks. A row of that
// is removed with the only host that it is about.
func (e *Edit) forgetInLists(name string) error {
	return e.eachList(func(cell string) (string, bool) {
		terms := plan.SplitList(cell)
		left := slices.DeleteFunc(slices.Clone(terms), func(term string) bool { return e.isOnly(strings.TrimPrefix(term, "!"), name) })
		switch {
		case len(left) == len(terms):
			return cell, true
		case len(left) > 0:
			return strings.Join(left, " "), true
		case strings.HasPrefix(terms[0], "!"): // all but this one
			return "*", true
		}
		return "", false
	})
}

// isOnly reports whether a term of a selector means a host and no other.
func (e *Edit) isOnly(term, name string) bool {
	if strings.EqualFold(term, name) {
		return true
	}
	hosts, err := e.plan.Select(term)
	return err == nil && len(hosts) == 1 && hosts[0].Name == name
}

// eachList changes the cells that list several hosts. Where keep is false, a row of checks is removed, and a
// cell with dependencies is empty afterwards.
func (e *Edit) eachList(change func(cell string) (changed string, keep bool)) error {
	for _, list := range []struct {
		in     grid
		column string
	}{{e.hosts, "depends_on"}, {e.checks, "host"}} {
		if list.in == nil || !has(list.in, list.column) {
			continue
		}
		column := slices.Index(list.in.columns(), list.column)
		var gone []int
		for row := range list.in.rows() {
			cells := list.in.cells(row)
			if column >= len(cells) || cells[column] == "" {
				continue
			}
			changed, keep := change(cells[column])
			switch {
			case changed == cells[column]:
			case !keep && list.in == e.checks:
				gone = append(gone, row)
			default:
				if err := list.in.set([]int{row}, list.column, changed); err != nil {
					return err
				}
			}
		}
		if len(gone) > 0 {
			if err := list.in.remove(gone); err != nil {
				return err
			}
		}
	}
	return nil
}
