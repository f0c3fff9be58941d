// Package diff tells what differs between two plans in meaning: not which cells, but what will be
// another way on which machine, in a sentence, with the risk of it.
package diff

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Object is what a change is a change of.
type Object string

const (
	Host    Object = "host"
	Server  Object = "server"
	Agent   Object = "agent"
	Network Object = "network"
	// Column is a column of the user's own, in one of the tables.
	Column Object = "column"
)

// Action is what happened to the object.
type Action string

const (
	Added   Action = "added"
	Removed Action = "removed"
	Renamed Action = "renamed"
	// Moved is a container that is on another host now.
	Moved   Action = "moved"
	Changed Action = "changed"
)

// Risk is what a change may do to a cluster that runs, from nothing to harm.
type Risk string

const (
	// None: nothing that runs notices.
	None Risk = "none"
	// Restart: the containers in Restarts are restarted.
	Restart Risk = "restart"
	// Ask: it may go wrong or leave something behind, so somebody should agree to it.
	Ask Risk = "ask"
	// Refuse: it does not work on a cluster that runs, or not without the steps in Hint.
	Refuse Risk = "refuse"
)

var risks = []Risk{None, Restart, Ask, Refuse}

// Compare is negative if r is less of a risk than other, 0 if they are the same.
func (r Risk) Compare(other Risk) int { return slices.Index(risks, r) - slices.Index(risks, other) }

// Change is one difference in meaning.
type Change struct {
	Object Object `json:"object"`
	Action Action `json:"action"`
	// Name is that of the host or container as it is now, or was if it is gone; of a column or of a
	// key of network.yaml ("versions.k3s").
	Name string `json:"name"`
	// Field is the column that has changed in the object's row, or empty.
	Field string `json:"field"`
	// From and To are values, hosts or names, empty where there was or is none.
	From string `json:"from"`
	To   string `json:"to"`
	// Hosts are the names of the hosts that are configured otherwise, sorted. Entries of /etc/hosts do
	// not count: a name or address that comes, goes or changes alters them on every host.
	Hosts []string `json:"hosts"`
	// Restarts are the names of the containers that are restarted, sorted. Only those count that are
	// in both plans.
	Restarts []string `json:"restarts"`
	Risk     Risk     `json:"risk"`
	// Reason says what the risk is, or is empty.
	Reason string `json:"reason"`
	// Hint says what is to be done besides, or is empty.
	Hint string `json:"hint"`
	// Where is the place in the newer plan that says it ("plans/k3s.csv:5"), empty if nothing does.
	Where string `json:"where"`
	// Sentence says all of it in one line without a full stop.
	Sentence string `json:"sentence"`
}

func (c Change) String() string { return c.Sentence }

// Reasons of changes that only the state of the cluster can really judge.
const (
	// LosesQuorum is the Reason to ask about a restart where there are two servers.
	LosesQuorum = "with 2 servers a restart loses the quorum for a moment"
	// SecondCluster is the Reason to refuse an init server that was no server before.
	SecondCluster = "an empty init server starts a second cluster"
)

// Changes are in a fixed order: hosts, servers, agents, network, columns, each by name.
type Changes []Change

// Of gives the changes that concern the host.
func (cs Changes) Of(host string) Changes {
	var found Changes
	for _, c := range cs {
		if slices.Contains(c.Hosts, host) {
			found = append(found, c)
		}
	}
	return found
}

// Risk is the greatest risk among the changes, None without any.
func (cs Changes) Risk() Risk {
	greatest := None
	for _, c := range cs {
		if c.Risk.Compare(greatest) > 0 {
			greatest = c.Risk
		}
	}
	return greatest
}

// With gives the changes of one risk.
func (cs Changes) With(risk Risk) Changes {
	return slices.DeleteFunc(slices.Clone(cs), func(c Change) bool { return c.Risk != risk })
}

// Hosts are the names of all hosts that any of the changes concerns, sorted.
func (cs Changes) Hosts() []string {
	var hosts []string
	for _, c := range cs {
		hosts = append(hosts, c.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// fromTo says how a value has changed: "ip a → b", "mac set to b", "mac a removed".
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

// inOneLine quotes a value with a line break, which a cell of the user's own may have.
func inOneLine(value string) string {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return strconv.Quote(value)
	}
	return value
}

// inBrackets gives the notes that are not empty as " (a; b)".
func inBrackets(notes ...string) string {
	notes = slices.DeleteFunc(notes, func(note string) bool { return note == "" })
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}
