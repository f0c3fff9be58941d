package plan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/table"
)

// The files of a plan, relative to the project. VersionsFile may hold the versions instead of
// NetworkFile.
const (
	HostsFile    = files.HostsFile
	K3sFile      = files.K3sFile
	ChecksFile   = files.ChecksFile
	NetworkFile  = files.NetworkFile
	VersionsFile = files.VersionsFile
)

// Load reads the tables of the project at the root of fsys and returns the plan with all problems,
// sorted. With an error among them the plan holds what could be understood: enough to look for further
// problems, and for nothing else.
func Load(fsys fs.FS) (*Plan, diag.Problems) {
	tables, problems := readTables(fsys)
	l := &loader{
		plan: &Plan{byName: map[string]*Host{}, Tables: Tables{
			Hosts: tables.hosts.File, K3s: tables.k3s.File, Network: tables.network.file, Checks: tables.checks.File,
		}},
		hosts:   tables.hosts,
		k3s:     tables.k3s,
		checks:  tables.checks,
		network: tables.network,
		names:   map[string]place{},
		ips:     map[netip.Addr]place{},
		macs:    map[string]place{},
		serials: map[string]place{},
		targets: map[Target]place{},
	}
	l.plan.k3sRows = len(l.k3s.Rows)
	l.plan.Network = l.network.read(l.plan.HasK3s())
	l.readHosts()
	l.readContainers()
	l.checkTags()
	l.checkTargets()
	l.checkSubnet()
	l.plan.Complete = l.hosts.Complete && l.k3s.Complete
	slices.SortFunc(l.plan.Hosts, func(a, b *Host) int { return cmp.Compare(a.Name, b.Name) })
	l.checkMachines()
	l.readChecks()

	l.plan.written = slices.Collect(maps.Keys(l.ips))
	problems = slices.Concat(problems, l.hosts.Problems(), l.k3s.Problems(), l.checks.Problems(), l.network.allProblems())
	problems = reportMisplaced(fsys, problems)
	problems.Sort()
	l.plan.suggest(problems)
	return l.plan, problems
}

// tables are what a plan is read from, CSV and YAML files or the sheets of a workbook.
type tables struct {
	hosts, k3s, checks *table.Table
	network            *networkReader
}

func readTables(fsys fs.FS) (tables, diag.Problems) {
	if _, err := fs.Stat(fsys, WorkbookFile); err == nil {
		return readWorkbook(fsys)
	}
	switch file := otherWorkbook(fsys); file {
	case "":
	case WorkbookFile: // a link that leads nowhere
		return readWorkbook(fsys)
	default:
		return noTables(file, "file-missing", "k3splan reads no spreadsheet but "+WorkbookFile, moveHint(file, WorkbookFile))
	}
	return tables{readTable(fsys, hostsSchema), readTable(fsys, k3sSchema), readChecksFile(fsys), readNetworkFiles(fsys)}, nil
}

// readTable reads a CSV table of the project.
func readTable(fsys fs.FS, s table.Schema) *table.Table {
	data, problem := readFile(fsys, s.File)
	if problem != nil {
		return table.Missing(s, *problem)
	}
	return table.ReadCSV(data, s)
}

// readChecksFile reads checks.csv, which may be missing.
func readChecksFile(fsys fs.FS) *table.Table {
	_, err := fs.Stat(fsys, ChecksFile)
	if _, isLink := fs.ReadLink(fsys, ChecksFile); errors.Is(err, fs.ErrNotExist) && isLink != nil {
		return table.None(checksSchema)
	}
	return readTable(fsys, checksSchema)
}

// readFile returns a file of the project, or the problem that keeps it from being read.
func readFile(fsys fs.FS, file string) ([]byte, *diag.Problem) {
	data, err := fs.ReadFile(fsys, file)
	if err == nil {
		return data, nil
	}
	problem := diag.FromError(err, file, "file-unreadable")
	if target, isLink := fs.ReadLink(fsys, file); errors.Is(err, fs.ErrNotExist) && isLink == nil {
		problem.Message, problem.Hint = fmt.Sprintf("the file is a link to %q, which does not exist", target), "let it lead to the file, or remove it"
	} else if errors.Is(err, fs.ErrNotExist) {
		problem.Code, problem.Message, problem.Hint = "file-missing", "the file is missing", "k3splan setup writes one to start from"
	} else {
		problem.Message = "the file cannot be read: " + problem.Message
	}
	return nil, &problem
}

// decode returns the rows of a table as values.
func decode[T any](t *table.Table) []T {
	rows, err := table.Decode[T](t)
	if err != nil {
		// every cell is a string and the header was checked, so there is nothing left to fail
		t.Report(diag.Error, 0, "", "", "csv-syntax", err.Error(), "")
		t.Complete = false
		return nil
	}
	return rows
}

// owner is a host or container that a name or address belongs to.
type owner struct{ kind, name string }

// place is where a name or address was first used.
type place struct {
	owner  owner
	row    row
	column string
}

// String returns `host "olaf" (plans/hosts.csv:3)`. It is a method, because most places are never shown.
func (p place) String() string {
	return fmt.Sprintf("%s %q (%s)", p.owner.kind, p.owner.name, p.row.Table.Place(p.row.Line, p.column))
}

// loader reads the rows in the order of the files, hosts before containers, so that of two
// duplicates the later one is the problem.
type loader struct {
	plan       *Plan
	hosts, k3s *table.Table
	checks     *table.Table
	network    *networkReader

	names map[string]place
	// offered are the names that were offered in hints, and those in the tables
	offered      map[string]bool
	ips          map[netip.Addr]place
	macs         map[string]place
	serials      map[string]place
	targets      map[Target]place
	unknownHosts int
	// addressed are the rows with a static address, for the checks that need the subnet
	addressed []addressed
}

// maxHints is for how many unknown hosts or wrong addresses a better one is looked for, which takes
// its time.
const maxHints = 50

// row is a row of a table whose cells are checked.
type row struct{ table.Row }

// unique notes where value is used, or reports the second use.
func unique[V comparable](seen map[V]place, value V, r row, column, code, message, hint string, by owner) bool {
	if first, taken := seen[value]; taken {
		r.Fail(column, r.Raw(column), code, fmt.Sprintf(message, first), hint)
		return false
	}
	seen[value] = place{by, r, column}
	return true
}

// required reports an empty cell; false means that there is nothing to check further.
func (r row) required(column, value string) bool {
	if value == "" && r.Table.Has(column) {
		r.Fail(column, "", "cell-empty", "the cell is empty", "")
	}
	return value != ""
}

// check reports a finding about a cell; ok means that there was none.
func (r row) check(column string, wrong *finding) (ok bool) {
	if wrong != nil {
		r.Fail(column, r.Raw(column), wrong.code, wrong.message, wrong.hint)
	}
	return wrong == nil
}

// checkAddress is check for a cell with an address. Of one with several addresses it shows the part that
// is IPv6.
func (r row) checkAddress(column string, wrong *finding) {
	if wrong != nil {
		r.Fail(column, cmp.Or(ipv6Part(r.Raw(column)), r.Raw(column)), wrong.code, wrong.message, wrong.hint)
	}
}
