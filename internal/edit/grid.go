package edit

// grid is a table that can be edited: a CSV file or a sheet of a workbook. The rows below its header are
// numbered from 0; their numbers change with each edit. An edit that fails leaves the grid unusable.
type grid interface {
	// name is how problems name the table: "plans/hosts.csv", "plans/cluster.xlsx!hosts".
	name() string
	columns() []string
	// knows reports whether k3splan knows a column of this name.
	knows(column string) bool
	// rows is the number of rows below the header.
	rows() int
	// line is where a row is in the file or sheet, counted from 1; the header is row -1.
	line(row int) int
	// cells are the trimmed texts of a row, in the order of the columns.
	cells(row int) []string
	// cell is the text of a cell in lower case, "" if there is no such column.
	cell(row int, column string) string

	// insert adds a row below another one, or below the header, in the style of the table. It returns the
	// line of the new row.
	insert(after int, cells map[string]string) (line int, err error)
	// addColumn adds a column behind the others, empty in all rows.
	addColumn(name string) error
	// remove deletes rows.
	remove(rows []int) error
	// set writes a text into a cell of each of these rows.
	set(rows []int, column, value string) error

	changed() bool
	// texts are the table before and after all edits, as text for a diff.
	texts() (before, after string)
}

// has reports whether the table has the column.
func has(g grid, column string) bool {
	for _, name := range g.columns() {
		if name == column {
			return true
		}
	}
	return false
}

// find returns the rows whose cell in a column is the value.
func find(g grid, column, value string) (rows []int) {
	for row := range g.rows() {
		if g.cell(row, column) == value {
			rows = append(rows, row)
		}
	}
	return rows
}
