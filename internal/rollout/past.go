package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k3splan/internal/diff"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
)

// Past compares the plans by which hosts were deployed with today's. Hosts that were deployed
// together have the same one, which is read and compared once.
type Past struct {
	today *plan.Plan
	known map[string]since
}

type since struct {
	plan    *plan.Plan
	changes diff.Changes
	err     error
	// names are those that hosts of the plan have today, where they differ; for a removed host,
	// a name that no host has
	names map[string]string
}

// NewPast returns the past of today's plan.
func NewPast(today *plan.Plan) *Past { return &Past{today, map[string]since{}} }

// Since returns what has changed in the plan since the receipt.
func (p *Past) Since(r *receipt.Receipt) (diff.Changes, error) {
	s := p.since(r)
	return s.changes, s.err
}

func (p *Past) since(r *receipt.Receipt) since {
	s, ok := p.known[string(r.Plan)]
	if !ok {
		if s.plan, s.err = r.Plan.Plan(); s.err == nil {
			s.changes = diff.Compare(s.plan, p.today)
			s.names = map[string]string{}
			for _, c := range s.changes {
				switch {
				case c.Object == diff.Host && c.Action == diff.Renamed:
					s.names[c.From] = c.Name
				case c.Object == diff.Host && c.Action == diff.Removed: // another one may have its name
					s.names[c.Name] = c.Hosts[0]
				}
			}
		} else {
			s.err = fmt.Errorf("the plan in the receipt cannot be read: %w", s.err)
		}
		p.known[string(r.Plan)] = s
	}
	return s
}

// nameNow is the name that the plan has today for the machine with the receipt, which answers as a host:
// that host's unless machines were mixed up.
func (p *Past) nameNow(r *receipt.Receipt, answers string) string {
	was := r.HostName(answers)
	if renamed := p.since(r).names[was]; p.today.Host(renamed) != nil {
		return renamed
	}
	if p.today.Host(was) != nil {
		return was
	}
	return answers
}

// Deployed is the plan as it is on the machines, under today's names and as far as is known: the last
// one by which a host with a server was deployed (or else any host), with the row of each host that was
// asked as its own receipt has it. Rows may contradict each other. It is nil without a receipt.
func (p *Past) Deployed(observed map[string]Observed) (*plan.Plan, error) {
	type known struct {
		name    string // today's
		receipt *receipt.Receipt
		since
	}
	var all []known
	for _, name := range slices.Sorted(maps.Keys(observed)) {
		if r := observed[name].Receipt; r != nil {
			if s := p.since(r); s.err == nil {
				all = append(all, known{name, r, s})
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	last := slices.MaxFunc(all, func(a, b known) int {
		withServer := func(k known) int { return min(1, len(k.receipt.ServerName())) }
		return cmp.Or(withServer(a)-withServer(b), a.receipt.Time.Compare(b.receipt.Time))
	})
	model := last.plan.Model()
	hosts := map[string]map[string]any{}
	add := func(name string, row map[string]any) {
		row["name"] = name
		hosts[name] = row
	}
	for name, row := range model.Hosts {
		add(cmp.Or(last.names[name], name), row)
	}
	for _, k := range all {
		was := k.receipt.HostName(k.name)
		host := k.plan.Host(was)
		if host == nil {
			continue
		}
		if p.today.Host(was) == nil {
			delete(hosts, was) // it has another name today, whatever it was in the last plan
		}
		add(k.name, host.Model())
	}
	model.Hosts = hosts
	data, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	return plan.FromModel(data)
}
