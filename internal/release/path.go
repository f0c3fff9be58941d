package release

import (
	"fmt"
	"slices"
	"strings"
)

// Pair is what a rack runs: a release of NixOS and a minor version of k3s, which is "" without k3s.
type Pair struct{ NixOS, K3s string }

func (p Pair) String() string {
	if p.K3s == "" {
		return "NixOS " + p.NixOS
	}
	return "NixOS " + p.NixOS + " with k3s " + p.K3s
}

// Step is one step of an upgrade: what the whole rack runs after it.
type Step struct {
	Pair
	// Reboot means that NixOS changes, so that every host has to be rebooted before the next step.
	Reboot bool
	// Patch is the patch release of k3s ("1.33.7+k3s3") that all servers have to run before the next step
	// of the path; "" if any will do.
	Patch string
}

// What a step costs. The path is the cheapest one. A release of NixOS restarts every host; k3s together with
// it leaves two causes if something fails, so they change together only where it saves a whole release.
const (
	costK3s      = 1
	costNixOS    = 3
	costBoth     = 5
	costInsecure = 2
)

// Path returns the steps of an upgrade, without the start; none if there is nothing to do. No step skips a
// minor version of k3s or goes back. The error says which part of the way is missing.
func Path(from, to Pair) ([]Step, error) {
	if from == to {
		return nil, nil
	}
	for _, p := range []Pair{from, to} {
		r, ok := Find(p.NixOS)
		switch {
		case !ok:
			return nil, fmt.Errorf("NixOS %s is unknown to this version of k3splan", p.NixOS)
		case p.K3s != "" && !r.Has(p.K3s):
			return nil, fmt.Errorf("NixOS %s has no k3s %s, but %s", p.NixOS, p.K3s, strings.Join(r.K3s, ", "))
		case (p.K3s == "") != (from.K3s == ""):
			return nil, fmt.Errorf("an upgrade does not add or remove k3s")
		}
	}
	if Before(to.NixOS, from.NixOS) || OlderK3s(to.K3s, from.K3s) {
		return nil, fmt.Errorf("%s is older than %s, and an upgrade does not go back", to, from)
	}
	// Dijkstra over the pairs of the table
	cost, before := map[Pair]int{from: 0}, map[Pair]Pair{}
	for open := []Pair{from}; len(open) > 0; {
		slices.SortFunc(open, func(a, b Pair) int { return cost[a] - cost[b] })
		here := open[0]
		open = open[1:]
		if here == to {
			break
		}
		for _, step := range steps(here) {
			next, sum := step.pair, cost[here]+step.cost
			if known, seen := cost[next]; seen && known <= sum || Before(to.NixOS, next.NixOS) {
				continue
			}
			cost[next], before[next] = sum, here
			if !slices.Contains(open, next) {
				open = append(open, next)
			}
		}
	}
	if _, found := cost[to]; !found {
		return nil, fmt.Errorf("there is no way from %s to %s that takes k3s from one minor version to the next", from, to)
	}
	var path []Step
	for here := to; here != from; here = before[here] {
		path = append(path, Step{Pair: here, Reboot: before[here].NixOS != here.NixOS})
	}
	slices.Reverse(path)
	for i := range path[:max(len(path)-1, 0)] {
		path[i].Patch = Patch(path[i].Pair, path[i+1].Pair)
	}
	return path, nil
}

// Patch returns the patch release of k3s that all servers have to run before a step from one pair to the next;
// "" if any will do.
func Patch(from, to Pair) string {
	if from.K3s == to.K3s {
		return ""
	}
	k, _ := FindK3s(from.K3s)
	return k.Leave
}

type edge struct {
	pair Pair
	cost int
}

// steps returns what can follow at once, the cheapest and newest first.
func steps(here Pair) []edge {
	var found []edge
	next := Following(here.K3s)
	add := func(r NixOS, minor string, cost int) {
		switch {
		case minor == "" || !r.Has(minor):
			return
		case r.Insecure(minor):
			cost += costInsecure
		}
		found = append(found, edge{Pair{r.Name, minor}, cost})
	}
	for _, r := range slices.Backward(releases) {
		switch {
		case r.Name == here.NixOS:
			add(r, next, costK3s)
		case Before(r.Name, here.NixOS):
		case here.K3s == "":
			found = append(found, edge{Pair{NixOS: r.Name}, costNixOS})
		default:
			add(r, here.K3s, costNixOS)
			add(r, next, costBoth)
		}
	}
	return found
}
