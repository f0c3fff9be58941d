package main

// What deploy prints: the proposal before, and the results after.

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/rollout"
	"k3splan/internal/text"
)

// deployView is the user of a deployment.
type deployView struct {
	ask.User
	app *app
	// verbose shows all that new systems change
	verbose bool
}

// Preview shows what new systems change.
func (v deployView) Preview(previews map[string]rollout.Preview) {
	v.showPreviews(v.app.stderr, previews)
}

func (v deployView) showPreviews(out *os.File, previews map[string]rollout.Preview) {
	for _, host := range slices.Sorted(maps.Keys(previews)) {
		fmt.Fprintf(out, "%s:\n", host)
		for _, line := range previews[host].Lines(v.verbose) {
			fmt.Fprintf(out, "  %s\n", line)
		}
	}
}

// Propose shows what is about to be done.
func (v deployView) Propose(p rollout.Proposal) { v.show(v.app.stderr, p) }

// show prints the waves with the reason why each host is in one, and what speaks against it.
func (v deployView) show(out *os.File, p rollout.Proposal) {
	var idle []string
	for _, host := range p.Selected {
		work, asked := p.Work[host.Name]
		switch o := p.Observed[host.Name]; {
		case o.Unreachable != "":
			fmt.Fprintf(out, "%s does not answer: %s\n", host.Name, diag.Printable(o.Unreachable))
			fmt.Fprint(out, v.app.hints(out, "  ", o.Hint))
		case asked && work.None():
			idle = append(idle, host.Name)
		}
	}
	shared := sharedReasons(p)
	if len(shared) > 0 {
		const label = "every host below: "
		fmt.Fprintln(out, label+strings.Join(shared, "\n"+strings.Repeat(" ", len(label))))
	}
	for i, wave := range p.Waves {
		fmt.Fprintf(out, "wave %d of %d: %s\n", i+1, len(p.Waves), wave.Kind)
		if wave.Snapshot != "" {
			fmt.Fprintf(out, "  first a snapshot of etcd, %s (--no-snapshot)\n", wave.Snapshot)
		}
		var bare []string
		for _, host := range wave.Hosts {
			own := text.Without(p.Work[host].Reasons, shared)
			if len(own) == 0 {
				bare = append(bare, host)
				continue
			}
			// below each other, as the sentences are long
			fmt.Fprintf(out, "  %s: %s\n", host, diag.PrintableLines(strings.Join(own, "\n    "+strings.Repeat(" ", len(host)))))
		}
		if len(bare) > 0 {
			fmt.Fprintf(out, "  %s\n", strings.Join(bare, " "))
		}
	}
	if len(p.Waves) > 0 && len(idle) > 0 {
		fmt.Fprintf(out, "unchanged: %s\n", strings.Join(idle, " "))
	}
	for _, problem := range p.Problems {
		word := v.app.paint(out, yellow, "to be confirmed:")
		if problem.Severity == diag.Error {
			word = v.app.paint(out, red, "refused:")
		}
		fmt.Fprintf(out, "%s %s\n%s", word, diag.PrintableLines(problem.Message), v.app.hints(out, "  ", problem.Hint))
	}
}

// sharedReasons are those that all hosts in the waves have, if there are several: they are shown once.
func sharedReasons(p rollout.Proposal) (shared []string) {
	hosts := 0
	for _, wave := range p.Waves {
		for _, host := range wave.Hosts {
			reasons := p.Work[host].Reasons
			if hosts == 0 {
				shared = slices.Clone(reasons)
			}
			shared = slices.DeleteFunc(shared, func(reason string) bool { return !slices.Contains(reasons, reason) })
			hosts++
		}
	}
	if hosts < 2 {
		return nil
	}
	return shared
}

// showDryRun shows what would be done, or the text for nothing.
func (a *app) showDryRun(view deployView, outcome rollout.Outcome, nothing string, asJSON bool) error {
	if asJSON {
		reasons := map[string][]string{}
		for host, w := range outcome.Work {
			if !w.None() {
				reasons[host] = w.Reasons
			}
		}
		return printJSON(a.stdout, deployProposal{text.OrEmpty(outcome.Waves), reasons, text.OrEmpty(outcome.Problems), outcome.Unreachable(), outcome.Previews})
	}
	view.show(a.stdout, outcome.Proposal)
	view.showPreviews(a.stdout, outcome.Previews)
	if len(outcome.Waves) == 0 && len(outcome.Unreachable()) == 0 {
		fmt.Fprintln(a.stdout, nothing)
	}
	return nil
}

// showResults prints what became of each host. done is what should have.
func (a *app) showResults(results []rollout.Result, done rollout.Status, started time.Time, asJSON bool) error {
	if asJSON {
		for i := range results {
			results[i].Reasons = text.OrEmpty(results[i].Reasons)
		}
		return printJSON(a.stdout, deployResults{text.OrEmpty(results), time.Since(started).Seconds()})
	}
	width, count := 4, 0
	for _, result := range results {
		width = max(width, len(result.Host))
	}
	fmt.Fprintf(a.stdout, "%-*s  RESULT\n", width, "HOST")
	for _, result := range results {
		fmt.Fprintf(a.stdout, "%-*s  %s\n", width, result.Host, diag.PrintableLines(result.String()))
		if result.Status == done {
			count++
		}
	}
	a.say("%s %s in %s", text.Count(count, "host"), done, time.Since(started).Round(100*time.Millisecond))
	return nil
}

// deployResults is what became of each host, for --json.
type deployResults struct {
	Results []rollout.Result `json:"results"`
	Seconds float64          `json:"seconds"`
}

// deployProposal is what would be deployed, for --dry-run --json.
type deployProposal struct {
	Waves      []rollout.Wave      `json:"waves"`
	Reasons    map[string][]string `json:"reasons"`
	Objections diag.Problems       `json:"objections"`
	// Unreachable explains why hosts do not answer; what they need is unknown.
	Unreachable map[string]string `json:"unreachable"`
	// Changes is what new systems change, by host; nil without --build.
	Changes map[string]rollout.Preview `json:"changes"`
}
