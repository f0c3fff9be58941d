package colmena

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"k3splan/internal/run"
)

// colmenaOf is the Colmena of the nixpkgs in a rendered sources.nix. The user's own nixpkgs
// configuration and overlays have no part in it.
const colmenaOf = `{ sources }: (import (import (/. + sources)).nixpkgs { config = { }; overlays = [ ]; }).colmena`

// FromSources returns the arguments with which nix-build makes Colmena from the nixpkgs that a
// rendered sources.nix, named by its absolute path, holds.
func FromSources(sources string) []string {
	return []string{"--no-out-link", "--argstr", "sources", sources, "-E", colmenaOf}
}

// Find returns the Colmena to run: the one on PATH, or else that of the nixpkgs in the rendered
// sources.nix, which Nix fetches or builds if it must; the output of Nix goes to stderr. The
// error is a *MissingError if there is no Nix either.
func Find(ctx context.Context, sources string, stderr io.Writer) (string, error) {
	if path, err := exec.LookPath("colmena"); err == nil {
		return path, nil
	}
	sources, err := filepath.Abs(sources)
	if err != nil {
		return "", fmt.Errorf("finding sources.nix: %w", err)
	}
	out, err := run.Output(ctx, run.Command{Program: "nix-build", Args: FromSources(sources), Stderr: stderr})
	if missing := (*run.MissingError)(nil); errors.As(err, &missing) {
		return "", run.Missing("colmena")
	} else if err != nil {
		return "", fmt.Errorf("getting Colmena from the pinned nixpkgs: %w", err)
	}
	program, err := exec.LookPath(filepath.Join(strings.TrimSpace(out), "bin", "colmena"))
	if err != nil {
		return "", fmt.Errorf("the pinned nixpkgs has no Colmena that runs: %w", err)
	}
	return program, nil
}
