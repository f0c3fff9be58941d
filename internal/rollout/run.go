package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// Status is what became of a host.
type Status string

const (
	// Unchanged hosts needed nothing.
	Unchanged Status = "unchanged"
	Deployed  Status = "deployed"
	// RolledBack hosts run an earlier generation.
	RolledBack Status = "rolled back"
	// Rebooted hosts run the system that they ran before.
	Rebooted Status = "rebooted"
	// Failed hosts were begun.
	Failed Status = "failed"
	// NotReached hosts were not begun, because of another one, an interruption, or because they do
	// not answer.
	NotReached Status = "not reached"
)

// Result is what became of a host, and why.
type Result struct {
	Host   string `json:"host"`
	Status Status `json:"status"`
	// Wave counts from 1; 0 is none.
	Wave int `json:"wave"`
	// Reasons say why the host was to be deployed.
	Reasons []string `json:"reasons"`
	// Cause is why it failed or was not reached; it may have several lines.
	Cause string `json:"cause"`
	// Log is the path of what Colmena said, or empty.
	Log string `json:"log"`
	// System is the store path that runs now, if the host was deployed or rolled back.
	System  string  `json:"system"`
	Seconds float64 `json:"seconds"`
	// Changes is what the new system changes, if it was found out before.
	Changes *Preview `json:"changes"`
}

// Say reports what is being done with a host, in a few words, and the last detail of it, or "".
type Say func(phase, detail string)

// Steps are what is done with one host. Every error ends the rollout.
type Steps interface {
	// Snapshot makes a snapshot of etcd before a wave.
	Snapshot(ctx context.Context, why string) error
	// Check makes sure, right before anything is done with the host, that this is still as harmless as it
	// was when the rollout was decided on.
	Check(ctx context.Context, host string, work Work, say Say) error
	// Apply brings the new system or secrets to the host, and returns the store path of the system that
	// is to run.
	Apply(ctx context.Context, host string, work Work, say Say) (system string, err error)
	// Gate waits until the host is healthy with the system.
	Gate(ctx context.Context, host, system string, work Work, say Say) error
	// Record writes the receipt.
	Record(ctx context.Context, host, system string) error
}

// Event is something that happens to a host while a rollout runs.
type Event struct {
	Host string
	Wave int
	// Phase is what is being done and Detail the last output; with Result the host is done.
	Phase, Detail string
	Result        *Result
}

// Run deploys wave after wave. When a host of a wave fails or is not safe to deploy any more, or ctx is
// done, no further host is begun. The results are those of all hosts in waves, in their order. report is
// called from one goroutine at a time.
func Run(ctx context.Context, waves []Wave, work map[string]Work, steps Steps, report func(Event)) []Result {
	r := &runner{work: work, steps: steps, report: report}
	var results []Result
	for i, wave := range waves {
		results = append(results, r.wave(ctx, i+1, wave)...)
	}
	return results
}

type runner struct {
	work   map[string]Work
	steps  Steps
	report func(Event)

	mutex sync.Mutex
	// stopped says why no further host is begun, or is empty
	stopped string
}

func (r *runner) tell(e Event) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.report(e)
}

// stop ends the rollout for the reason, unless it has ended already, and returns why it has.
func (r *runner) stop(why string) string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.stopped = cmp.Or(r.stopped, why)
	return r.stopped
}

func (r *runner) wave(ctx context.Context, number int, wave Wave) (results []Result) {
	if wave.Snapshot != "" && ctx.Err() == nil && r.stop("") == "" {
		first := wave.Hosts[0]
		r.tell(Event{Host: first, Wave: number, Phase: "making a snapshot of etcd"})
		if err := r.steps.Snapshot(ctx, wave.Snapshot); err != nil {
			r.stop(causeOf(ctx, fmt.Errorf("no snapshot of etcd could be made: %w", err)))
		}
	}
	answers := each(wave.Hosts, wave.Parallel, func(host string) Result {
		why := ""
		if ctx.Err() != nil {
			why = "interrupted before its turn"
		}
		result := Result{Host: host, Status: NotReached, Cause: r.stop(why)}
		if result.Cause == "" {
			result = r.host(ctx, number, host)
			switch result.Status {
			case Failed:
				r.stop("stopped after " + host)
			case NotReached:
				r.stop("stopped before " + host)
			}
		}
		result.Wave, result.Reasons = number, r.work[host].Reasons
		r.tell(Event{Host: host, Wave: number, Result: &result})
		return result
	})
	for _, host := range wave.Hosts {
		results = append(results, answers[host])
	}
	return results
}

func (r *runner) host(ctx context.Context, number int, host string) (result Result) {
	start := time.Now()
	result = Result{Host: host, Status: Failed}
	defer func() { result.Seconds = time.Since(start).Seconds() }()
	say := func(phase, detail string) { r.tell(Event{Host: host, Wave: number, Phase: phase, Detail: detail}) }
	work := r.work[host]
	if err := r.steps.Check(ctx, host, work, say); err != nil {
		result.Status, result.Cause = NotReached, causeOf(ctx, err)
		return result
	}
	system, err := r.steps.Apply(ctx, host, work, say)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = r.steps.Gate(ctx, host, system, work, say)
	}
	if err == nil {
		say("writing the receipt", "")
		err = r.steps.Record(ctx, host, system)
	}
	if err != nil {
		result.Cause = causeOf(ctx, err)
		return result
	}
	result.Status, result.System = Deployed, system
	return result
}

// causeOf returns the words of an error, with its hint and whether the user interrupted it.
func causeOf(ctx context.Context, err error) string {
	cause := err.Error()
	if exit := (*run.ExitError)(nil); ctx.Err() != nil || errors.As(err, &exit) && exit.Interrupted != nil {
		cause = "interrupted: " + cause
	}
	if hint := diag.HintOf(err); hint != "" {
		cause += "\n" + hint
	}
	return cause
}

// String returns the result in words, with the further lines of the cause below.
func (r Result) String() string { return r.words(string(r.Status)) }

// words is String with another word for what was done.
func (r Result) words(done string) string {
	switch r.Status {
	case Deployed, RolledBack, Rebooted:
		return fmt.Sprintf("%s (%.0f s)", done, r.Seconds)
	case Failed:
		text := "failed: " + indented(r.Cause)
		if r.Log != "" {
			text += "\n    log: " + r.Log
		}
		return text
	case NotReached:
		return "not reached: " + indented(r.Cause)
	}
	return string(r.Status)
}

func indented(lines string) string { return strings.ReplaceAll(lines, "\n", "\n    ") }
