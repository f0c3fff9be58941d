package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/nix"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
)

func (a *app) updateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "update [nixpkgs|disko]",
		Short: "Pin the newest commits of nixpkgs and disko",
		Long: `Looks up the newest commits of what versions.nixos and versions.disko name, and pins them with
their hashes in plans/lock.json. Nothing else but "upgrade" ever moves a pin: no deploy upgrades a host by
accident. Put the file into git. disko is pinned if a host has a layout in partitioning/.`,
		Example:   "  k3splan update\n  k3splan update nixpkgs",
		Args:      usageArgs(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{string(plan.SourceNixpkgs), string(plan.SourceDisko)},
		RunE: func(_ *cobra.Command, args []string) error {
			only := plan.SourceKind("")
			if len(args) == 1 {
				only = plan.SourceKind(args[0])
			}
			return a.update(only)
		},
	}
}

// update pins one source, or all that the project needs. Problems outside of the tables and the lock do
// not matter.
func (a *app) update(only plan.SourceKind) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	w, err := a.workspace()
	if err != nil {
		return err
	}
	if _, err := a.validPlan(); err != nil {
		return err
	}
	p, problems := w.Project()
	if wrong := slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool { return p.Code != "lock-invalid" }); len(wrong) > 0 {
		a.printProblems(a.stderr, wrong)
		return invalid()
	}
	versions := p.Plan.Network.Versions
	if tooOld := (*nix.TooOldError)(nil); errors.As(requireNix(p), &tooOld) {
		a.warn("%v: build, rehearse, deploy, upgrade and boot-stick refuse to start\nhint: %s", tooOld, tooOld.Hint())
	}
	var sources []plan.Source
	if only != plan.SourceDisko {
		sources = append(sources, versions.NixOS)
	}
	if only == plan.SourceDisko || only == "" && (p.NeedsDisko() || p.Lock.Disko != nil) {
		sources = append(sources, versions.Disko)
	}
	moves, err := pins.Update(context.Background(), dir, sources, a.stderr)
	if err != nil {
		return err
	}
	for _, move := range moves {
		if _, err := fmt.Fprintln(a.stdout, move); err != nil {
			return err
		}
	}
	return nil
}
