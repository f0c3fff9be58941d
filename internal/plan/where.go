package plan

import "k3splan/internal/diag"

// The tables are in the plan's memory for the people who ask where a value comes from.

// Where tells which place says what stands in a column of hosts.csv ("plans/hosts.csv:3", or
// "plans/cluster.xlsx!hosts!B3"), or "" if the cell is empty or there is no such
// column, so that the value is k3splan's default.
func (h *Host) Where(column string) string { return h.row.Where(column) }

// Where tells which place says what stands in a column of k3s.csv ("plans/k3s.csv:3"), or "" if
// the cell is empty or there is no such column.
func (c *Container) Where(column string) string { return c.row.Where(column) }

// Where tells which place says what a key of network.yaml is ("gateway", "versions.k3s"; the place
// is like "plans/network.yaml:2"), or "" if none does, so that the value is k3splan's default.
func (n Network) Where(key string) string { return n.places[key].Place() }

// At gives the file and line of a key of network.yaml as a Problem names them.
func (n Network) At(key string) (file string, line int) {
	return n.places[key].File, n.places[key].Line
}

// Concerns tells whether the problem is one of the host's row.
func (h *Host) Concerns(p diag.Problem) bool { return h.row.Concerns(p) }

// Concerns tells whether the problem is one of the container's row.
func (c *Container) Concerns(p diag.Problem) bool { return c.row.Concerns(p) }

// notePlaces notes where the keys stand that are given.
func (r *networkReader) notePlaces() {
	r.network.places = map[string]diag.Problem{}
	for _, key := range networkKeys {
		for _, d := range []*document{r.document, r.versions} {
			line := d.line(key)
			if line == 0 || r.network.places[key].File != "" {
				continue
			}
			value := d.keys[key]
			if len(value.Content) > 0 {
				value = value.Content[0] // of a list
			}
			r.network.places[key] = diag.Problem{File: d.fileAt(line, value.Value), Line: line}
		}
	}
}
