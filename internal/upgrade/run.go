package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/nix"
	"k3splan/internal/project"
	"k3splan/internal/release"
	"k3splan/internal/rollout"
	"k3splan/internal/text"
)

// Request is what is to be upgraded, and how.
type Request struct {
	// NixOS and K3s are the release and the minor version to be reached, as Find takes them.
	NixOS, K3s string
	// DryRun changes nothing: the way and what is open are all that is found out.
	DryRun bool

	// Rollout has the limits and times of the deployments. Which hosts they are for is set by each step.
	Rollout rollout.Request
}

// Environment is what an upgrade uses of k3splan and of the machine that it runs on.
type Environment struct {
	rollout.Environment
	// Load reads the project again, and fails if it has errors.
	Load func() (*project.Project, error)
	// Status asks all hosts.
	Status func(*project.Project) ([]rollout.HostStatus, error)
	// Problems shows why a plan cannot be moved.
	Problems func(diag.Problems)
	// Deployed shows what became of hosts that were deployed or rebooted.
	Deployed func([]rollout.Result) error
	// Log gets what is said while pins are looked up.
	Log io.Writer
}

// Outcome is where the rack is.
type Outcome struct {
	Way
	// Open says what is missing until the rack is where the plan is, host by host.
	Open []string
	// Below are the hosts whose servers have to run a newer patch release before the next step, with what
	// they run.
	Below []string
	// TooOld is set if the Nix of this machine does not evaluate what is to be deployed next. A dry run
	// returns it here, any other call as its error.
	TooOld error
	// Took says what was done, or is "".
	Took string
}

// Run takes the next step: it completes the present one if the rack is not where the plan is, and otherwise
// moves the plan by one step of the way. It stops after that. Called again after a failure, it goes on.
func Run(ctx context.Context, environment Environment, view rollout.View, request Request) (*Outcome, error) {
	u := &upgrade{environment: environment, view: view, request: request}
	p, err := environment.Load()
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{}
	if outcome.Way, err = Find(p.Plan, request.NixOS, request.K3s); err != nil {
		return nil, err
	}
	if p.Lock.Origin(p.Plan.Network.Versions.NixOS).Missing != "" {
		return u.finishMove(ctx, outcome, p)
	}
	rows, err := environment.Status(p)
	if err != nil {
		return nil, err
	}
	outcome.Open, outcome.Below = open(rows), below(rows, outcome.Patch())
	next := outcome.next(rows)
	source := p.Plan.Network.Versions.NixOS
	if next == Steps {
		if source, err = sourceOf(p.Plan, keysOf(p.Plan, outcome.From, outcome.Steps[0], release.Today())); err != nil {
			return nil, err
		}
	}
	if next != Arrived {
		outcome.TooOld = nix.Require(ctx, source, p.Dir)
	}
	switch {
	case request.DryRun:
		return outcome, nil
	case next == Waits:
		away := unreachable(rows)
		return outcome, diag.WithHint(fmt.Errorf("%s not answer, and no step is begun before all hosts are where the plan is", text.Enumerate(away)+map[bool]string{true: " does", false: " do"}[len(away) == 1]),
			"k3splan status shows why")
	case outcome.TooOld != nil:
		return outcome, outcome.TooOld
	case next == Completes:
		return outcome, u.complete(ctx, outcome, p, outcome.From.String())
	case next == Patches:
		return outcome, u.patch(ctx, outcome, p)
	case next == Steps:
		return outcome, u.step(ctx, outcome, p)
	}
	return outcome, nil
}

type upgrade struct {
	environment Environment
	view        rollout.View
	request     Request
}

// open says what hosts lack until they are where the plan is.
func open(rows []rollout.HostStatus) (list []string) {
	for _, row := range rows {
		switch {
		case row.State == rollout.StateUnreachable:
			list = append(list, row.Host+": does not answer")
		case row.State != rollout.StateCurrent:
			list = append(list, row.Host+": "+string(row.State))
		case row.RebootNeeded:
			list = append(list, row.Host+": needs a reboot ("+strings.Join(row.RebootFor, ", ")+")")
		case !row.Healthy:
			why := "is not healthy"
			for _, part := range []string{row.Server, row.Node} {
				if part != "" && part != "ready" {
					why += ": " + part
				}
			}
			if len(row.FailedUnits) > 0 {
				why += ": failed units " + strings.Join(row.FailedUnits, " ")
			}
			list = append(list, row.Host+": "+why)
		}
	}
	return list
}

func unreachable(rows []rollout.HostStatus) (hosts []string) {
	for _, row := range rows {
		if row.State == rollout.StateUnreachable {
			hosts = append(hosts, row.Host)
		}
	}
	return hosts
}

// finishMove pins what the plan names already: an earlier call was interrupted right after it had moved the
// plan.
func (u *upgrade) finishMove(ctx context.Context, outcome *Outcome, p *project.Project) (*Outcome, error) {
	const why = "nixpkgs is not pinned as the plan names it"
	outcome.TooOld = nix.Require(ctx, p.Plan.Network.Versions.NixOS, p.Dir)
	if u.request.DryRun {
		outcome.Open = []string{why}
		return outcome, nil
	}
	if outcome.TooOld != nil {
		return outcome, outcome.TooOld
	}
	if err := u.view.Confirm(ctx, why+"; pin it and go on with "+outcome.From.String()+"?"); err != nil {
		return outcome, err
	}
	if err := u.move(ctx, p, nil); err != nil {
		return outcome, err
	}
	return outcome, u.complete(ctx, outcome, p, outcome.From.String())
}

// step takes the first step of the way.
func (u *upgrade) step(ctx context.Context, outcome *Outcome, p *project.Project) error {
	next := outcome.Steps[0]
	question := fmt.Sprintf("take step 1 of %d: %s?", len(outcome.Steps), Words(next))
	if err := u.view.Confirm(ctx, question); err != nil {
		return err
	}
	if err := u.move(ctx, p, keysOf(p.Plan, outcome.From, next, release.Today())); err != nil {
		return err
	}
	outcome.From, outcome.Steps = next.Pair, outcome.Steps[1:]
	return u.complete(ctx, outcome, p, next.Pair.String())
}

// patch brings the patch release that all servers have to run before the next step.
func (u *upgrade) patch(ctx context.Context, outcome *Outcome, p *project.Project) error {
	leave := outcome.Patch()
	if err := u.view.Confirm(ctx, fmt.Sprintf("before the next step all servers have to run k3s %s or newer, and %s not; move nixpkgs within NixOS %s?",
		leave, text.Enumerate(outcome.Below)+map[bool]string{true: " does", false: " do"}[len(outcome.Below) == 1], outcome.From.NixOS)); err != nil {
		return err
	}
	// the newer nixpkgs may mark the present minor version as ended
	if err := u.move(ctx, p, keysOf(p.Plan, outcome.From, release.Step{Pair: outcome.From}, release.Today())); err != nil {
		return err
	}
	if err := u.complete(ctx, outcome, p, outcome.From.String()); err != nil {
		return err
	}
	rows, err := u.environment.Status(p)
	if err != nil {
		return err
	}
	if outcome.Below = below(rows, leave); len(outcome.Below) > 0 {
		return diag.WithHint(fmt.Errorf("the newest commit of NixOS %s has an older k3s than %s: %s", outcome.From.NixOS, leave, text.Enumerate(outcome.Below)),
			"the step to the next minor version of k3s has to wait for it, or take a release of NixOS that has it")
	}
	return nil
}

// below returns the hosts whose server runs an older k3s than a version, with what they run; none if any will do.
func below(rows []rollout.HostStatus, version string) (old []string) {
	for _, row := range rows {
		if version != "" && row.ServerK3s != "" && release.OlderK3s(row.ServerK3s, version) {
			old = append(old, fmt.Sprintf("%s (%s)", row.Host, strings.TrimPrefix(row.ServerK3s, "v")))
		}
	}
	return old
}

var errProblems = errors.New("the plan would have errors after this step, and is as it was")

func (u *upgrade) move(ctx context.Context, p *project.Project, keys map[string]string) error {
	problems, err := move(ctx, p, keys, u.environment.Log)
	if len(problems) > 0 {
		u.environment.Problems(problems)
		err = errors.Join(errProblems, err)
	}
	return err
}

// complete brings the rack to where the plan is: it deploys, reboots what needs it, and checks.
func (u *upgrade) complete(ctx context.Context, outcome *Outcome, _ *project.Project, what string) error {
	p, err := u.environment.Load()
	if err != nil {
		return err
	}
	u.view.Say("bringing the rack to %s", what)
	deploying := u.request.Rollout
	deploying.Project, deploying.Selected, deploying.Every = p, p.Plan.Hosts, true
	for _, do := range []func(context.Context, rollout.Environment, rollout.View, rollout.Request) (*rollout.Outcome, error){rollout.Deploy, rollout.Reboot} {
		done, err := do(ctx, u.environment.Environment, u.view, deploying)
		if done != nil && done.Begun && len(done.Waves) > 0 {
			err = errors.Join(u.environment.Deployed(done.Results), err)
		}
		if err != nil {
			return diag.WithHint(err, joinLines(diag.HintOf(err), "k3splan upgrade goes on with this step when that is mended"))
		}
	}
	rows, err := u.environment.Status(p)
	if err != nil {
		return err
	}
	if outcome.Open = open(rows); len(outcome.Open) > 0 {
		return fmt.Errorf("the step is not complete: %s", strings.Join(outcome.Open, "; "))
	}
	outcome.Took = what
	return nil
}

func joinLines(lines ...string) string {
	var kept []string
	for _, line := range lines {
		if line != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
