// Package diff compares two plans by their meaning: not which cells differ, but what changes on which
// machine, in a sentence, with its risk.
package diff

import (
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"
)

// Object is the kind of thing that changes.
type Object string

const (
	Host    Object = "host"
	Server  Object = "server"
	Agent   Object = "agent"
	Network Object = "network"
	// Column is one of the user's own columns.
	Column Object = "column"
)

// Action is what happened to the object.
type Action string

const (
	Added   Action = "added"
	Removed Action = "removed"
	Renamed Action = "renamed"
	// Moved is a container that is now on another host.
	Moved   Action = "moved"
	Changed Action = "changed"
)

// Risk is what a change may do to a running cluster.
type Risk string

const (
	// None: no running container is affected.
	None Risk = "none"
	// Restart: the containers in Restarts are restarted.
	Restart Risk = "restart"
	// Ask: it may go wrong or leave something behind, so it needs a confirmation.
	Ask Risk = "ask"
	// Refuse: it does not work on a running cluster, or not without the steps in Hint.
	Refuse Risk = "refuse"
)

var risks = []Risk{None, Restart, Ask, Refuse}

// Compare returns a negative number if r is the smaller risk, 0 if they are the same.
func (r Risk) Compare(other Risk) int { return slices.Index(risks, r) - slices.Index(risks, other) }

// Change is one difference in meaning.
type Change struct {
	Object Object `json:"object"`
	Action Action `json:"action"`
	// Name is the name of the host or container in the newer plan, or in the older one if it was removed;
	// of a column; or a key of network.yaml ("versions.k3s").
	Name string `json:"name"`
	// Field is the column of the object's row that changed, or empty.
	Field string `json:"field"`
	// From and To are values, hosts or names, empty if there was or is none.
	From string `json:"from"`
	To   string `json:"to"`
	// Hosts are the names of the hosts whose configuration changes, sorted. Entries of /etc/hosts do not
	// count: every name and address is in those of every host.
	Hosts []string `json:"hosts"`
	// Restarts are the names of the containers that are restarted, sorted; only of those in both plans.
	Restarts []string `json:"restarts"`
	Risk     Risk     `json:"risk"`
	// Reason is what the risk is, or empty.
	Reason string `json:"reason"`
	// Hint is what has to be done as well, or empty.
	Hint string `json:"hint"`
	// Where is the place in the newer plan ("plans/k3s.csv:5"), empty if it has none.
	Where string `json:"where"`
	// Sentence is all of it in one line, without a full stop.
	Sentence string `json:"sentence"`
}

func (c Change) String() string { return c.Sentence }

// Reasons of changes whose risk depends on the state of the cluster.
const (
	// LosesQuorum is the Reason to ask about a restart of one of two servers.
	LosesQuorum = "with 2 servers a restart loses the quorum for a moment"
	// SecondCluster is the Reason to refuse an init server that was not a server before.
	SecondCluster = "an empty init server starts a second cluster"
)

// Changes are in a fixed order: hosts, servers, agents, network, columns, each by name.
type Changes []Change

// Of returns the changes that concern the host.
func (cs Changes) Of(host string) Changes {
	var found Changes
	for _, c := range cs {
		if slices.Contains(c.Hosts, host) {
			found = append(found, c)
		}
	}
	return found
}

// Risk returns the greatest risk among the changes, None without any.
func (cs Changes) Risk() Risk {
	greatest := None
	for _, c := range cs {
		if c.Risk.Compare(greatest) > 0 {
			greatest = c.Risk
		}
	}
	return greatest
}

// With returns the changes of one risk.
func (cs Changes) With(risk Risk) Changes {
	return slices.DeleteFunc(slices.Clone(cs), func(c Change) bool { return c.Risk != risk })
}

// Hosts returns the names of all hosts that any of the changes concerns, sorted.
func (cs Changes) Hosts() []string {
	var hosts []string
	for _, c := range cs {
		hosts = append(hosts, c.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// fromTo returns how a value changed: "ip a → b", "mac set to b", "mac a removed".
func fromTo(field, from, to string) string {
	switch {
	case from == "":
		return field + " set to " + inOneLine(to)
	case to == "":
		return field + " " + inOneLine(from) + " removed"
	default:
		return field + " " + inOneLine(from) + " → " + inOneLine(to)
	}
}

// inOneLine quotes a value with a line break, or with what a terminal would obey, which a cell of an own
// column may have.
func inOneLine(value string) string {
	if diag.Printable(value) != value {
		return strconv.QuoteToGraphic(value)
	}
	return value
}

// inBrackets returns the notes that are not empty as " (a; b)".
func inBrackets(notes ...string) string {
	notes = slices.DeleteFunc(notes, func(note string) bool { return note == "" })
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}
