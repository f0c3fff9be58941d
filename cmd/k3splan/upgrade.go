package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/project"
	"k3splan/internal/release"
	"k3splan/internal/rollout"
	"k3splan/internal/text"
	"k3splan/internal/upgrade"
)

func (a *app) upgradeCommand() *cobra.Command {
	var request upgrade.Request
	var yes, asJSON bool
	command := &cobra.Command{
		Use:   "upgrade",
		Short: "Take a step to a newer release of NixOS and k3s",
		Long: `Finds the way from what the plan asks for to a newer release of NixOS and of k3s, and takes its next
step: it sets the plan's versions, pins the newest commit, deploys to all hosts in waves, reboots those
that need it, in waves as well, checks that all are healthy, and stops. Call it again for the next step.

k3s goes from one minor version to the next, and never back. Before k3s 1.34, whose etcd is another
one, all servers have to run a patch release that leaves no removed members behind: where they do not,
the step before is to bring it. A minor version past its end of life is permitted for the step that
needs it (versions.permit_ended), and for that package alone.

If the rack is not where the plan is, as after a failure, the step is that the rack gets there: deploy,
reboots, check. Where hosts do not answer, no step is begun.

What a step does is asked about, with everything that a deployment asks about; --yes confirms it in
advance. With --dry-run the way is shown and what is open, and nothing is changed.`,
		Example: "  k3splan upgrade --dry-run\n  k3splan upgrade\n  k3splan upgrade --to " + release.Newest().Name,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if request.Rollout.GateTimeout <= 0 {
				return usageError(errors.New("--gate-timeout must be above zero"))
			}
			request.Rollout.Limits = rollout.Limits{Unavailable: 1, Parallel: parallelByDefault()}
			return a.upgrade(request, yes, asJSON)
		},
	}
	f := command.Flags()
	f.StringVar(&request.NixOS, "to", "", "the `RELEASE` of NixOS to be reached (default: the newest that this k3splan knows)")
	_ = command.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(releaseNames(), nothingElse))
	f.StringVar(&request.K3s, "k3s", "", "the minor `VERSION` of k3s to be reached (default: the newest that the release has and that is supported)")
	f.BoolVar(&request.DryRun, "dry-run", false, "show the way and what is open, and change nothing")
	f.BoolVarP(&yes, "yes", "y", false, "confirm everything in advance")
	f.BoolVar(&request.Rollout.Force, "force", false, "also do what is refused")
	f.BoolVar(&request.Rollout.NoSnapshot, "no-snapshot", false, "make no snapshot of etcd before waves that may change k3s")
	f.DurationVar(&request.Rollout.GateTimeout, "gate-timeout", 10*time.Minute, "how long a host may take to become healthy, and to come back from a reboot")
	f.DurationVar(&request.Rollout.GatePause, "gate-pause", 2*time.Second, "how long a gate waits before it asks again")
	_ = f.MarkHidden("gate-pause")
	addJSON(command, &asJSON, upgradeResult{})
	return command
}

// upgradeResult is where the rack is, for --json.
type upgradeResult struct {
	From  upgradePair   `json:"from"`
	To    upgradePair   `json:"to"`
	Steps []upgradeStep `json:"steps"`
	// Open says what is missing until the rack is where the plan is; never nil.
	Open []string `json:"open"`
	// Patch is the patch release that all servers have to run before the next step, or empty, and Below those
	// that run an older one; never nil.
	Patch string   `json:"patch"`
	Below []string `json:"below"`
	// Took is the step that was completed, or empty.
	Took string `json:"took"`
}

type upgradePair struct {
	NixOS string `json:"nixos"`
	K3s   string `json:"k3s"`
}

type upgradeStep struct {
	NixOS  string `json:"nixos"`
	K3s    string `json:"k3s"`
	Reboot bool   `json:"reboot"`
	// Ended means that the minor version of k3s is past its end of life and permitted for the step.
	Ended bool `json:"ended"`
	// Patch is the patch release that all servers have to run before the step after this one, or empty.
	Patch string `json:"patch"`
}

func (a *app) upgrade(request upgrade.Request, yes, asJSON bool) error {
	p, err := a.upgradable()
	if err != nil {
		return err
	}
	if _, err := upgrade.Find(p.Plan, request.NixOS, request.K3s); err != nil {
		return usageError(err)
	}
	ctx, stop := interruptible()
	defer stop()
	environment := upgrade.Environment{
		Environment: a.environment(p),
		Load: func() (*project.Project, error) {
			a.opened = nil // the plan may have moved
			return a.upgradable()
		},
		Status:   func(*project.Project) ([]rollout.HostStatus, error) { return a.status(nil) },
		Problems: func(problems diag.Problems) { a.printProblems(a.stderr, problems) },
		Deployed: func(results []rollout.Result) error {
			for _, r := range results {
				if r.Status == rollout.Failed || r.Status == rollout.NotReached {
					a.say("%s: %s", r.Host, diag.PrintableLines(r.String()))
				}
			}
			return nil
		},
		Log: a.stderr,
	}
	outcome, err := upgrade.Run(ctx, environment, deployView{User: a.user(yes), app: a}, request)
	if outcome == nil {
		return err
	}
	if asJSON {
		if jsonErr := printJSON(a.stdout, upgradeResultOf(outcome)); jsonErr != nil {
			return jsonErr
		}
		return err
	}
	if err != nil {
		return err
	}
	if outcome.TooOld != nil {
		a.warn("%v\nhint: %s", outcome.TooOld, diag.HintOf(outcome.TooOld))
	}
	return a.showUpgrade(outcome)
}

// upgradable returns the project. A lock without the commit that the plan names does not stop it: an
// upgrade that was interrupted leaves one.
func (a *app) upgradable() (*project.Project, error) {
	w, err := a.workspace()
	if err != nil {
		return nil, err
	}
	p, problems := w.Project()
	if problems.Errors() > 0 {
		a.printProblems(a.stderr, problems)
		return nil, invalid()
	}
	return p, nil
}

func upgradeResultOf(o *upgrade.Outcome) upgradeResult {
	pair := func(p release.Pair) upgradePair { return upgradePair{p.NixOS, p.K3s} }
	result := upgradeResult{
		From: pair(o.From), To: pair(o.To), Open: text.OrEmpty(o.Open), Steps: []upgradeStep{}, Took: o.Took,
		Patch: o.Patch(), Below: text.OrEmpty(o.Below),
	}
	for _, s := range o.Steps {
		result.Steps = append(result.Steps, upgradeStep{s.NixOS, s.K3s, s.Reboot, upgrade.Permits(s, release.Today()), s.Patch})
	}
	return result
}

// showUpgrade prints where the rack is and the way that is left.
func (a *app) showUpgrade(o *upgrade.Outcome) error {
	if o.Took != "" {
		fmt.Fprintf(a.stdout, "the rack runs %s\n", o.Took)
	} else {
		fmt.Fprintf(a.stdout, "the plan asks for %s\n", o.From)
	}
	for _, line := range o.Open {
		fmt.Fprintf(a.stdout, "open: %s\n", diag.Printable(line))
	}
	if len(o.Steps) == 0 {
		fmt.Fprintln(a.stdout, "no step is left")
		return nil
	}
	if patch := o.Patch(); patch != "" && len(o.Below)+len(o.Open) > 0 {
		line := "before step 1, all servers have to run k3s " + patch + " or newer"
		if len(o.Below) > 0 {
			line += "; older: " + text.Enumerate(o.Below)
		}
		fmt.Fprintln(a.stdout, diag.Printable(line))
	}
	var rows [][]string
	for i, s := range o.Steps {
		note := ""
		if s.Reboot {
			note = "reboots"
		}
		if s.Patch != "" {
			note = joinNotes(note, "before the next step, all servers have to run k3s "+s.Patch+" or newer")
		}
		if upgrade.Permits(s, release.Today()) {
			note = joinNotes(note, "past its end of life, permitted for this step")
		}
		rows = append(rows, []string{fmt.Sprint(i + 1), s.NixOS, s.K3s, note})
	}
	if _, err := fmt.Fprint(a.stdout, a.table([]string{"STEP", "NIXOS", "K3S", "NOTE"}, rows)); err != nil {
		return err
	}
	return nil
}

func joinNotes(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
