package rollout

import (
	"context"
	"errors"
	"sync"
	"time"

	"k3splan/internal/run"
)

// Status is what became of a host.
type Status string

const (
	// Unchanged hosts needed nothing.
	Unchanged Status = "unchanged"
	Deployed  Status = "deployed"
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
	// Cause says why it failed or was not reached; it may have several lines.
	Cause string `json:"cause"`
	// Log is the path of what Colmena said, or empty.
	Log string `json:"log"`
	// System is the store path that runs now, if the host was deployed.
	System  string  `json:"system"`
	Seconds float64 `json:"seconds"`
}

// Say tells what is going on with a host: what is being done, in a few words, and what was heard of it
// last, or "".
type Say func(phase, detail string)

// Steps are what is done with one host. Every error ends the rollout.
type Steps interface {
	// Apply brings the new system or secrets to the host, and gives the store path of the system
	// that is to run.
	Apply(ctx context.Context, host string, work Work, say Say) (system string, err error)
	// Gate waits until the host is well with the system.
	Gate(ctx context.Context, host, system string, work Work, say Say) error
	// Record writes the receipt.
	Record(ctx context.Context, host, system string) error
}

// Event is something that happens to a host while a rollout runs.
type Event struct {
	Host string
	Wave int
	// Phase says what is being done and Detail what was heard of it; with Result the host is done.
	Phase, Detail string
	Result        *Result
}

// Run deploys wave after wave. When a host of a wave fails or ctx is done, no further host is begun.
// Results are those of all hosts in waves, in their order. report is called from one goroutine at a
// time.
func Run(ctx context.Context, waves []Wave, work map[string]Work, steps Steps, report func(Event)) []Result {
	r := &runner{work: work, steps: steps, report: report}
	var results []Result
	stopped := ""
	for i, wave := range waves {
		number := i + 1
		if stopped == "" && ctx.Err() != nil {
			stopped = "interrupted before its turn"
		}
		if stopped != "" {
			for _, host := range wave.Hosts {
				results = append(results, Result{Host: host, Status: NotReached, Wave: number, Reasons: work[host].Reasons, Cause: stopped})
			}
			continue
		}
		for _, result := range r.wave(ctx, number, wave) {
			if result.Status != Deployed && stopped == "" {
				stopped = "stopped after " + result.Host
				if result.Status == NotReached {
					stopped = result.Cause
				}
			}
			results = append(results, result)
		}
	}
	return results
}

type runner struct {
	work   map[string]Work
	steps  Steps
	mutex  sync.Mutex
	report func(Event)
}

func (r *runner) tell(e Event) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.report(e)
}

func (r *runner) wave(ctx context.Context, number int, wave Wave) []Result {
	var mutex sync.Mutex
	failed := ""
	answers := each(wave.Hosts, wave.Parallel, func(host string) Result {
		mutex.Lock()
		cause := ""
		switch {
		case ctx.Err() != nil:
			cause = "interrupted before its turn"
		case failed != "":
			cause = "stopped after " + failed
		}
		mutex.Unlock()
		result := Result{Host: host, Status: NotReached, Cause: cause}
		if cause == "" {
			result = r.host(ctx, number, host)
			if result.Status == Failed {
				mutex.Lock()
				failed = host
				mutex.Unlock()
			}
		}
		result.Wave, result.Reasons = number, r.work[host].Reasons
		r.tell(Event{Host: host, Wave: number, Result: &result})
		return result
	})
	var results []Result
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
		result.Cause = err.Error()
		if exit := (*run.ExitError)(nil); ctx.Err() != nil || errors.As(err, &exit) && exit.Interrupted != nil {
			result.Cause = "interrupted: " + result.Cause
		}
		return result
	}
	result.Status, result.System = Deployed, system
	return result
}
