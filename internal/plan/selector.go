package plan

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/gobwas/glob"

	"k3splan/internal/diag"
)

// Select returns the hosts that a selector names, in the order of the plan. A selector is a list of
// terms separated by blanks or commas; several patterns are one selector. A term is
//
//	NAME     the host of that name
//	PATTERN  the hosts whose names match a glob (*, ?, [a-z])
//	@TAG     the hosts with that tag, or with that role (@k3s-server, @k3s-agent, @k3s-init); a glob too
//	!TERM    takes the hosts of TERM away, in whatever order the terms are
//
// The case of letters does not matter. Where all terms take hosts away, the selection starts with all
// hosts. A term that matches nothing is an error, and so is a selection without any host: in most
// commands naming no host means all of them. Without patterns, Select returns all hosts.
func (p *Plan) Select(patterns ...string) ([]*Host, error) {
	if len(patterns) == 0 {
		return slices.Clone(p.Hosts), nil
	}
	terms, err := parseSelector(patterns)
	if err != nil {
		return nil, err
	}
	chosen, removed := map[*Host]bool{}, map[*Host]bool{}
	onlyRemoves := true
	for _, t := range terms {
		found := slices.Collect(t.hosts(p))
		if len(found) == 0 {
			return nil, p.noMatch(t)
		}
		set := chosen
		if t.removes {
			set = removed
		} else {
			onlyRemoves = false
		}
		for _, host := range found {
			set[host] = true
		}
	}
	selected := slices.DeleteFunc(slices.Clone(p.Hosts), func(h *Host) bool {
		return removed[h] || !chosen[h] && !onlyRemoves
	})
	if len(selected) == 0 {
		return nil, diag.WithHint(fmt.Errorf("%q selects no host: all of them are taken away again", strings.Join(patterns, " ")),
			"name a host that no term with ! takes away")
	}
	return selected, nil
}

// term is one part of a selector.
type term struct {
	// text is the name, tag or glob without ! and @
	text           string
	removes, isTag bool
	matches        *glob.Pattern
}

func parseSelector(patterns []string) (terms []term, err error) {
	isSeparator := func(char rune) bool { return char == ',' || unicode.IsSpace(char) }
	for _, pattern := range patterns {
		words := strings.FieldsFunc(pattern, isSeparator)
		if len(words) == 0 { // an unset variable of a script must not mean all hosts
			return nil, fmt.Errorf("%q selects no host: write a name, @TAG or pattern", pattern)
		}
		for _, word := range words {
			t := term{text: strings.ToLower(word)}
			t.text, t.removes = strings.CutPrefix(t.text, "!")
			t.text, t.isTag = strings.CutPrefix(t.text, "@")
			if t.matches, err = glob.Compile(t.text); err != nil || t.text == "" {
				return nil, fmt.Errorf("%q selects no host: write a name, @TAG or pattern", word)
			}
			terms = append(terms, t)
		}
	}
	return terms, nil
}

// hosts yields the hosts that the term names, whether it adds or removes them.
func (t term) hosts(p *Plan) func(yield func(*Host) bool) {
	return func(yield func(*Host) bool) {
		for _, host := range p.Hosts {
			names := []string{host.Name}
			if t.isTag {
				names = slices.Concat(host.Tags, host.RoleTags())
			}
			if slices.ContainsFunc(names, t.matches.Match) && !yield(host) {
				return
			}
		}
	}
}

// noMatch is the error for a term that matches no host.
func (p *Plan) noMatch(t term) error {
	if t.isTag {
		return Unknown("tag", t.text, slices.Concat(p.Tags(), RoleTags()), "@")
	}
	return p.UnknownHost(t.text)
}

// UnknownHost is the error for a name that no host of the plan has. For the name of a container, its
// hint names the container's host.
func (p *Plan) UnknownHost(name string) error {
	for _, c := range p.Containers() {
		if strings.EqualFold(c.Name, name) {
			return diag.WithHint(fmt.Errorf("%q is not a host but the %s of one", c.Name, c.Role.What()),
				fmt.Sprintf("did you mean its host, %q?", c.Host.Name))
		}
	}
	return Unknown("host", name, p.HostNames(), "")
}

// maxListed is how many names an error lists.
const maxListed = 20

// Unknown is the error for a name of a kind ("tag") that the plan does not have. Its hint is the nearest
// known name with the prefix that people write before it ("@"), or else the list of known names.
func Unknown(kind, name string, known []string, prefix string) error {
	err := fmt.Errorf("there is no %s %q in the plan", kind, name)
	if nearest := diag.Nearest(name, known); nearest != "" {
		return diag.WithHint(err, fmt.Sprintf("did you mean %q?", prefix+nearest))
	}
	if len(known) == 0 {
		return err
	}
	listed := known[:min(len(known), maxListed)]
	more := ""
	if len(known) > len(listed) {
		more = fmt.Sprintf(" and %d more", len(known)-len(listed))
	}
	return diag.WithHint(err, fmt.Sprintf("the %ss are: %s%s", kind, strings.Join(listed, " "), more))
}
