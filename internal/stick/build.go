package stick

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

// Build is an installer image to be built.
type Build struct {
	// File is the rendered installer.nix, by its absolute path.
	File string
	Host string
	// Netinstall leaves the host's system out of the image; Legacy makes the host boot in BIOS mode.
	Netinstall, Legacy bool
}

// These pass everything as data: neither a path nor a name becomes code.
const (
	imageExpression    = `{ file, host, netinstall, legacyBoot }: (import (/. + file) { inherit netinstall legacyBoot; }).${host}`
	problemsExpression = `{ file, host, netinstall, legacyBoot }: (import (/. + file) { inherit netinstall legacyBoot; problems = true; }).${host}`
)

// arguments are what Nix needs to evaluate one of the expressions.
func (b Build) arguments(expression string) []string {
	nixBool := map[bool]string{true: "true", false: "false"}
	return []string{
		"--argstr", "file", b.File, "--argstr", "host", b.Host,
		"--arg", "netinstall", nixBool[b.Netinstall], "--arg", "legacyBoot", nixBool[b.Legacy],
		"-E", expression,
	}
}

// problems evaluates the host and returns what would prevent its installation; see
// templates/modules/installation.nix. An evaluation that fails has none: the build fails in the same way
// and shows why.
func (b Build) problems(ctx context.Context) (diag.Problems, error) {
	out, err := run.Output(ctx, run.Command{Program: "nix-instantiate", Args: append([]string{"--eval", "--strict", "--json"}, b.arguments(problemsExpression)...)})
	var failed *run.ExitError
	var missing *run.MissingError
	switch {
	case errors.As(err, &failed) && failed.Interrupted == nil, errors.As(err, &missing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("check the installation of %s: %w", b.Host, err)
	}
	var problems diag.Problems
	if err := json.Unmarshal([]byte(out), &problems); err != nil {
		return nil, fmt.Errorf("check the installation of %s: read the output of nix-instantiate: %w", b.Host, err)
	}
	for i := range problems {
		problems[i].Severity = diag.Error
	}
	problems.Sort()
	return problems, nil
}

// command returns the program and arguments that build the image. The image is a file in the folder iso
// of what link, a path that must not exist yet, then points to; as long as link exists, Nix keeps it.
func (b Build) command(link string) (program string, args []string) {
	return "nix-build", append([]string{"--out-link", link}, b.arguments(imageExpression)...)
}

// build builds the image and returns its path in the Nix store; discard lets Nix collect it again.
func (b Build) build(ctx context.Context, streams Streams) (file string, discard func(), err error) {
	temp, err := files.TempFolder("k3splan-image-", func(string) bool { return true })
	if err != nil {
		return "", nil, err
	}
	discard = func() { _ = os.RemoveAll(temp) } // a link and its folder
	defer func(remove func()) {
		if err != nil {
			remove()
		}
	}(discard)
	link := filepath.Join(temp, "result")
	program, args := b.command(link)
	if err := run.Run(ctx, run.Command{Program: program, Args: args, Stdin: streams.In, Stdout: streams.Err, Stderr: streams.Err}); err != nil {
		return "", nil, fmt.Errorf("build the image of %s: %w", b.Host, err)
	}
	found, err := fs.Glob(os.DirFS(link), "iso/*.iso") // the path of link is not a pattern
	if err != nil || len(found) != 1 {
		return "", nil, errors.Join(fmt.Errorf("build the image of %s: the result contains no image", b.Host), err)
	}
	return filepath.Join(link, found[0]), discard, nil
}
