package main

// What deploy prints: the plan before, and the results after.

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"k3splan/internal/rollout"
	"k3splan/internal/text"
)

// showPlan tells the waves, and for each host why it is in one.
func (d *deployment) showPlan(out *os.File) {
	var idle []string
	for _, host := range d.Selected {
		switch o := d.Observed[host.Name]; {
		case o.Unreachable != "":
			fmt.Fprintf(out, "%s does not answer: %s\n", host.Name, o.Unreachable)
			fmt.Fprint(out, d.hints(out, "  ", o.Hint))
		case d.Work[host.Name].None():
			idle = append(idle, host.Name)
		}
	}
	shared := d.sharedReasons()
	if len(shared) > 0 {
		const label = "every host below: "
		fmt.Fprintln(out, label+strings.Join(shared, "\n"+strings.Repeat(" ", len(label))))
	}
	for i, wave := range d.waves {
		fmt.Fprintf(out, "wave %d of %d: %s\n", i+1, len(d.waves), wave.Kind)
		var bare []string
		for _, host := range wave.Hosts {
			own := slices.DeleteFunc(slices.Clone(d.Work[host].Reasons), func(reason string) bool { return slices.Contains(shared, reason) })
			if len(own) == 0 {
				bare = append(bare, host)
				continue
			}
			// below each other, as the sentences are long
			fmt.Fprintf(out, "  %s: %s\n", host, strings.Join(own, "\n    "+strings.Repeat(" ", len(host))))
		}
		if len(bare) > 0 {
			fmt.Fprintf(out, "  %s\n", strings.Join(bare, " "))
		}
	}
	if len(d.waves) > 0 && len(idle) > 0 {
		fmt.Fprintf(out, "unchanged: %s\n", strings.Join(idle, " "))
	}
	for _, o := range d.objections {
		word := d.paint(out, yellow, "to be confirmed:")
		if o.Refused {
			word = d.paint(out, red, "refused:")
		}
		fmt.Fprintf(out, "%s %s\n%s", word, o.Message, d.hints(out, "  ", o.Hint))
	}
}

// sharedReasons are those of all hosts in the waves, if there are several: to be told once.
func (d *deployment) sharedReasons() []string {
	hosts := d.hosts()
	if len(hosts) < 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(d.Work[hosts[0]].Reasons), func(reason string) bool {
		return slices.ContainsFunc(hosts, func(host string) bool { return !slices.Contains(d.Work[host].Reasons, reason) })
	})
}

// showDryRun shows what would be done.
func (d *deployment) showDryRun() error {
	away := map[string]string{}
	for _, host := range d.Selected {
		if o := d.Observed[host.Name]; o.Unreachable != "" {
			away[host.Name] = o.Unreachable
		}
	}
	if d.asJSON {
		return printJSON(d.stdout, struct {
			Waves      []rollout.Wave      `json:"waves"`
			Reasons    map[string][]string `json:"reasons"`
			Objections []rollout.Objection `json:"objections"`
			// Unreachable says why hosts do not answer; what they need is not known.
			Unreachable map[string]string `json:"unreachable"`
		}{orNone(d.waves), reasonsOf(d.Work), orNone(d.objections), away})
	}
	d.showPlan(d.stdout)
	switch {
	case len(away) > 0:
		fmt.Fprintf(d.stdout, "what %s that do not answer need is not known\n", text.Count(len(away), "host"))
	case len(d.waves) == 0:
		fmt.Fprintln(d.stdout, "nothing is to be deployed")
	}
	return nil
}

func reasonsOf(work map[string]rollout.Work) map[string][]string {
	reasons := map[string][]string{}
	for host, w := range work {
		if !w.None() {
			reasons[host] = w.Reasons
		}
	}
	return reasons
}

// orNone is never nil, so that an empty list is a list in JSON.
func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// notReached is what became of the hosts of all waves when none started.
func (d *deployment) notReached(why error) (results []rollout.Result) {
	for i, wave := range d.waves {
		for _, host := range wave.Hosts {
			results = append(results, rollout.Result{
				Host: host, Status: rollout.NotReached, Wave: i + 1, Reasons: d.Work[host].Reasons, Cause: why.Error(),
			})
		}
	}
	return results
}

func (d *deployment) showResults(results []rollout.Result) error {
	if d.asJSON {
		for i := range results {
			results[i].Reasons = orNone(results[i].Reasons)
		}
		return printJSON(d.stdout, struct {
			Results []rollout.Result `json:"results"`
			Seconds float64          `json:"seconds"`
		}{orNone(results), time.Since(d.started).Seconds()})
	}
	width := 4
	for _, result := range results {
		width = max(width, len(result.Host))
	}
	fmt.Fprintf(d.stdout, "%-*s  RESULT\n", width, "HOST")
	for _, result := range results {
		fmt.Fprintf(d.stdout, "%-*s  %s\n", width, result.Host, d.statusText(result))
	}
	deployed := 0
	for _, result := range results {
		if result.Status == rollout.Deployed {
			deployed++
		}
	}
	d.say("%s deployed in %s", text.Count(deployed, "host"), time.Since(d.started).Round(100*time.Millisecond))
	return nil
}

// statusText is what became of a host, with the lines of the cause below.
func (a *app) statusText(r rollout.Result) string {
	switch r.Status {
	case rollout.Deployed:
		return fmt.Sprintf("deployed (%.0f s)", r.Seconds)
	case rollout.Failed:
		text := "failed: " + strings.ReplaceAll(r.Cause, "\n", "\n    ")
		if r.Log != "" {
			text += "\n    log: " + r.Log
		}
		return text
	case rollout.NotReached:
		return "not reached: " + r.Cause
	}
	return string(r.Status)
}
