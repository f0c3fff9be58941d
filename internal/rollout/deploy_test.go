package rollout

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// scripted is a user who answers from a script.
type scripted struct{ *asktest.User }

func (scripted) Propose(Proposal) {}

func (scripted) Preview(map[string]Preview) {}

// What is refused stops a deployment without a question, what is forced is not asked about, and every
// answer but yes stops it.
func TestConsent(t *testing.T) {
	refused := diag.Problem{Severity: diag.Error, Message: "it would found a second cluster"}
	risky := diag.Problem{Severity: diag.Warning, Message: "may cut the connection"}
	const question = "deploy, with 1 point to be confirmed?"
	for name, test := range map[string]struct {
		problems diag.Problems
		force    bool
		answers  []asktest.Answer
		want     error
	}{
		"nothing":          {nil, false, nil, nil},
		"yes":              {diag.Problems{risky}, false, []asktest.Answer{asktest.Yes(question)}, nil},
		"no":               {diag.Problems{risky}, false, []asktest.Answer{asktest.No(question)}, ask.ErrDeclined},
		"Ctrl-C":           {diag.Problems{risky}, false, []asktest.Answer{{Question: question, Err: ask.ErrInterrupted}}, ask.ErrInterrupted},
		"no terminal":      {diag.Problems{risky}, false, []asktest.Answer{{Question: question, Err: ask.ErrNoTerminal}}, ask.ErrNoTerminal},
		"forced":           {diag.Problems{refused}, true, nil, nil},
		"forced and risky": {diag.Problems{refused, risky}, true, []asktest.Answer{asktest.Yes(question)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := &deployment{view: scripted{asktest.New(t, test.answers...)}, request: Request{Force: test.force}}
			require.ErrorIs(t, d.consent(context.Background(), test.problems), test.want)
		})
	}
	d := &deployment{view: scripted{asktest.New(t)}}
	err := d.consent(context.Background(), diag.Problems{refused, risky})
	require.EqualError(t, err, "refused: it would found a second cluster")
	require.Contains(t, diag.HintOf(err), "--force")
}

// Several servers that Colmena restarts in one go are asked about, or refused if they restart together.
func TestWithoutGates(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "karl": "a"}, "")
	proposal := Proposal{Selected: p.Hosts, Observed: map[string]Observed{}}
	require.Equal(t, []string{"asked the servers on olaf and rolf restart one right after the other: etcd loses its quorum if one is not back before the next"},
		messages((&deployment{}).withoutGates(proposal)))
	require.Equal(t, []string{"refused the servers on olaf and rolf restart at the same time: etcd loses its quorum"},
		messages((&deployment{request: Request{Args: []string{"-p", "3"}}}).withoutGates(proposal)))
	require.Len(t, (&deployment{request: Request{Args: []string{"--parallel=1"}}}).withoutGates(proposal), 1)
	require.Equal(t, diag.Warning, (&deployment{request: Request{Args: []string{"--parallel=1"}}}).withoutGates(proposal)[0].Severity)
	proposal.Observed["rolf"] = Observed{Unreachable: "no route"}
	require.Empty(t, (&deployment{}).withoutGates(proposal))
	require.Empty(t, (&deployment{}).withoutGates(Proposal{Selected: []*plan.Host{p.Host("karl")}}))
}

// A dry run that could not ask every host does not end as if it had.
func TestUnknownChanges(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s"}, "")
	proposal := Proposal{Selected: p.Hosts, Observed: map[string]Observed{}}
	require.NoError(t, unknownChanges(proposal))
	proposal.Observed["rolf"] = Observed{Unreachable: "no route"}
	require.EqualError(t, unknownChanges(proposal), "1 host of 2 did not answer, so their changes are unknown")
	proposal.Observed["olaf"] = Observed{Unreachable: "no route"}
	require.EqualError(t, unknownChanges(proposal), "no host answered (2 hosts of 2), so what would be deployed is unknown")
}

// The project is one process's at a time, and its own: what lies in the lock's place is not written to.
func TestLockProject(t *testing.T) {
	dir := t.TempDir()
	unlock, err := LockProject(dir)
	require.NoError(t, err)
	_, err = LockProject(dir)
	require.ErrorContains(t, err, "the project is in use by process ")
	require.Equal(t, "wait until it has ended", diag.HintOf(err))
	unlock()
	unlock, err = LockProject(dir)
	require.NoError(t, err)
	unlock()
	require.Error(t, errors.Join(func() error { _, err := LockProject(dir + "/missing"); return err }()))
}

// The lease is renewed before each step with a server, and before others if that is a while ago.
func TestRenew(t *testing.T) {
	count := 0
	var lost error
	d := &Driver{Renew: func(context.Context) error { count++; return lost }}
	renew := func(isServer bool, want int) {
		t.Helper()
		require.NoError(t, d.renew(context.Background(), isServer))
		require.Equal(t, want, count)
	}
	renew(false, 1)
	renew(false, 1)
	renew(true, 2)
	d.renewed = d.renewed.Add(-recently)
	renew(false, 3)
	d.renewed = d.renewed.Add(time.Hour) // the clock was set back
	renew(false, 4)
	lost = errors.New("alice is changing this rack")
	require.ErrorIs(t, d.renew(context.Background(), true), lost)
	require.NoError(t, (&Driver{}).renew(context.Background(), true))
}

// A gate looks twice also where a single answer takes longer than it may wait.
func TestWait(t *testing.T) {
	says := func(answers ...string) func(context.Context) (string, error) {
		return func(ctx context.Context) (waits string, err error) {
			time.Sleep(2 * time.Millisecond)
			if waits = answers[0]; len(answers) > 1 {
				answers = answers[1:]
			}
			if waits == "broken" {
				return "", errors.New("it runs another system")
			}
			return waits, nil
		}
	}
	gate := func(limit time.Duration, answers ...string) error {
		return wait(t.Context(), "karl", limit, time.Microsecond, says(answers...), func(string, string) {})
	}
	require.NoError(t, gate(time.Microsecond, ""))
	require.NoError(t, gate(time.Microsecond, "its lease is to be renewed", ""))
	require.EqualError(t, gate(time.Microsecond, "a", "b", ""), "karl did not become healthy within 1µs: b")
	require.NoError(t, gate(time.Minute, "a", "b", "c", ""))
	require.EqualError(t, gate(time.Minute, "a", "broken"), "it runs another system")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("Ctrl-C"))
	require.EqualError(t, wait(ctx, "karl", time.Minute, time.Minute, says("a"), func(string, string) {}), "while waiting for karl: a: Ctrl-C")
}

// A machine that is not the one that was asked first is not deployed to.
func TestSameMachine(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i"}, "")
	before := living(t, p).Observed["olaf"]
	other := func(change func(*Observed)) error {
		now := before
		change(&now)
		return sameMachine("olaf", before, now)
	}
	require.NoError(t, other(func(*Observed) {}))
	require.NoError(t, other(func(o *Observed) { o.System = "/nix/store/y" }), "an interrupted activation may have gone on")
	require.ErrorContains(t, other(func(o *Observed) { o.Unreachable = "no route" }), "does not answer any more: no route")
	require.ErrorContains(t, other(func(o *Observed) { o.Etcd = nil }), "the servers' state on olaf")
	require.ErrorContains(t, other(func(o *Observed) { o.Receipt = nil }), "another receipt")
	require.ErrorContains(t, other(func(o *Observed) { r := *o.Receipt; r.Time = time.Unix(2, 0); o.Receipt = &r }), "another receipt")
}
