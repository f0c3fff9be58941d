package plan

import "k3splan/internal/diag"

// The plan remembers the tables for people who ask where a value comes from.

// Where returns the place of a cell of hosts.csv ("plans/hosts.csv:3", or "plans/cluster.xlsx!hosts!B3"),
// or "" if the cell is empty or the column missing, so that the value is k3splan's default.
func (h *Host) Where(column string) string { return h.row.Where(column) }

// Where returns the place of a cell of k3s.csv ("plans/k3s.csv:3"), or "" if the cell is empty or the
// column missing.
func (c *Container) Where(column string) string { return c.row.Where(column) }

// Where returns the place of a key of network.yaml ("gateway", "versions.k3s"; the place is like
// "plans/network.yaml:2"), or "" if it is not given, so that the value is k3splan's default.
func (n Network) Where(key string) string { return n.places[key].Place() }

// At returns the file and line of a key of network.yaml, as a Problem names them.
func (n Network) At(key string) (file string, line int) {
	return n.places[key].File, n.places[key].Line
}

// Concerns reports whether the problem is one of the host's row.
func (h *Host) Concerns(p diag.Problem) bool { return h.row.Concerns(p) }

// Concerns reports whether the problem is one of the container's row.
func (c *Container) Concerns(p diag.Problem) bool { return c.row.Concerns(p) }
