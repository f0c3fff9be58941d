package stick

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// installerOf passes everything as data: neither a path nor a name becomes code.
const installerOf = `{ file, host, netinstall, legacyBoot }: (import (/. + file) { inherit netinstall legacyBoot; }).${host}`

// arguments are what nix-build and nix-instantiate need to find the image.
func (b Build) arguments() []string {
	nixBool := map[bool]string{true: "true", false: "false"}
	return []string{
		"--argstr", "file", b.File, "--argstr", "host", b.Host,
		"--arg", "netinstall", nixBool[b.Netinstall], "--arg", "legacyBoot", nixBool[b.Legacy],
		"-E", installerOf,
	}
}

// command returns the program and arguments that build the image. The image is a file in the folder iso
// of what link, a path that must not exist yet, then points to; as long as link exists, Nix keeps it.
func (b Build) command(link string) (program string, args []string) {
	return "nix-build", append([]string{"--out-link", link}, b.arguments()...)
}

// build builds the image and returns its path in the Nix store; discard lets Nix collect it again.
func (b Build) build(ctx context.Context, streams Streams) (file string, discard func(), err error) {
	temp, err := os.MkdirTemp("", "k3splan-image-")
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
