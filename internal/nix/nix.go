// Package nix knows which Nix is on this machine, and whether it evaluates a plan's nixpkgs.
package nix

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	kversion "k8s.io/apimachinery/pkg/util/version"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/run"
)

// Newer says where a newer Nix comes from.
const Newer = "Debian 13 has Nix 2.26 (nix-bin) and Debian 12 has 2.8; the newest one is at https://nixos.org/download"

// TooOldError is a Nix that does not evaluate a plan's nixpkgs.
type TooOldError struct {
	// Version is what is there, and Needed the oldest version that works.
	Version, Needed string
	// Source is the plan's nixpkgs.
	Source plan.Source
}

func (e *TooOldError) Error() string {
	return fmt.Sprintf("Nix %s is too old for nixpkgs (%s), which needs %s or newer", e.Version, e.Source, e.Needed)
}

// Hint says where a newer Nix comes from.
func (e *TooOldError) Hint() string { return Newer }

// Needed returns the oldest Nix that evaluates a nixpkgs, or "" if that is unknown. A path is relative to
// dir, the project's folder; its nixpkgs knows its release.
func Needed(source plan.Source, dir string) string {
	if source.Form != plan.SourcePath {
		return source.Nix()
	}
	location := source.Location
	if !filepath.IsAbs(location) {
		location = filepath.Join(dir, location)
	}
	text, err := files.Read(filepath.Join(location, ".version"))
	if err != nil {
		return ""
	}
	name := release.NameIn(strings.TrimSpace(string(text)))
	if r, known := release.Find(name); known {
		return r.Nix
	} else if name != "" && release.Before(release.Latest().Name, name) {
		return release.Latest().Nix
	}
	return ""
}

// askTime is how long Nix may take to print its version.
const askTime = 10 * time.Second

// Require returns a *TooOldError if the Nix of this machine does not evaluate a project's nixpkgs. A Nix that
// is missing or prints no version is not too old: what runs it reports that.
func Require(ctx context.Context, source plan.Source, dir string) error {
	needed := Needed(source, dir)
	if needed == "" {
		return nil
	}
	out, err := run.Output(ctx, run.Command{Program: "nix-instantiate", Args: []string{"--version"}, Timeout: askTime, Limit: 1 << 16})
	if err != nil {
		return ctx.Err()
	}
	if version := versionNumber.FindString(out); Older(version, needed) {
		return &TooOldError{Version: version, Needed: needed, Source: source}
	}
	return nil
}

var (
	versionNumber  = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)
	leadingNumbers = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+`)
)

// Older compares versions by their numbers; an unknown one is not older.
func Older(present, oldest string) bool {
	p, err := kversion.ParseGeneric(leadingNumbers.FindString(present))
	o, errOldest := kversion.ParseGeneric(oldest)
	return err == nil && errOldest == nil && p.LessThan(o)
}
