package rehearsal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// expression passes the file as data: neither a path nor a name becomes code.
const expression = `{ file }: import (/. + file) { }`

// test returns the arguments by which Nix builds the rehearsal, which is running it.
func (r *Rehearsal) test() []string {
	return []string{"--no-out-link", "--argstr", "file", r.File, "-E", expression}
}

// driver returns the arguments by which Nix builds the driver for looking into the rehearsal, at link.
func (r *Rehearsal) driver(link string) []string {
	return []string{"--out-link", link, "--argstr", "file", r.File, "-A", "driverInteractive", "-E", expression}
}

// Run builds the machines and runs the script. What Nix and the machines say goes to log; subtest is called with
// each part of the script when it begins.
func (r *Rehearsal) Run(ctx context.Context, log io.Writer, subtest func(name string)) error {
	lines := &subtests{found: subtest}
	out := io.MultiWriter(run.Capped(log, maxLog), lines)
	err := run.Run(ctx, run.Command{Program: "nix-build", Args: r.test(), Stdout: out, Stderr: out})
	return explain(err, lines.last)
}

// maxLog is how much of what Nix says is kept, in bytes.
const maxLog = 256 << 20

// Drive builds the driver and starts it at the terminal. The machines end with it; what they had on their disks
// stays in the state folder that the driver names.
func (r *Rehearsal) Drive(ctx context.Context, stdin, stdout, stderr *os.File) error {
	link := filepath.Join(r.folder, "driver")
	lines := &subtests{found: func(string) {}}
	err := run.Run(ctx, run.Command{Program: "nix-build", Args: r.driver(link), Stdout: io.Discard, Stderr: io.MultiWriter(stderr, lines)})
	if err != nil {
		return explain(err, lines.last)
	}
	return run.Run(ctx, run.Command{Program: filepath.Join(link, "bin", "nixos-test-driver"), Stdin: stdin, Stdout: stdout, Stderr: stderr})
}

// explain adds what to do about an error of Nix.
func explain(err error, lines []string) error {
	var exit *run.ExitError
	if err == nil || !errors.As(err, &exit) || exit.Interrupted != nil {
		return err
	}
	said := strings.Join(lines, "\n")
	if strings.Contains(said, "required to build") && strings.Contains(said, "kvm") {
		return diag.WithHint(errors.New("no machine that Nix builds on has KVM"),
			"on this one: /dev/kvm, and system-features = kvm nixos-test benchmark big-parallel in nix.conf\n"+
				"or a remote builder with the features kvm and nixos-test in /etc/nix/machines")
	}
	return fmt.Errorf("the rehearsal failed\n%s", diag.PrintableLines(said))
}

// keptLines is how much of the end of an output is shown.
const keptLines = 12

// maxLine is how much of a line is kept, in bytes.
const maxLine = 4 << 10

// subtests finds the beginnings of subtests in the output of the test driver, and keeps its last lines.
type subtests struct {
	found func(name string)
	part  []byte
	last  []string
}

func (s *subtests) Write(p []byte) (int, error) {
	s.part = append(s.part, p...)
	for {
		i := bytes.IndexByte(s.part, '\n')
		if i < 0 {
			s.part = s.part[:min(len(s.part), maxLine)]
			return len(p), nil
		}
		line := diag.Printable(strings.TrimSpace(strings.ToValidUTF8(string(s.part[:i]), "")))
		s.part = s.part[i+1:]
		if line == "" {
			continue
		}
		// the driver also says when one is finished: "(finished: subtest: …"
		if name, ok := strings.CutPrefix(line, "subtest: "); ok {
			s.found(name)
		}
		s.last = append(s.last, line)
		if len(s.last) > keptLines {
			s.last = s.last[1:]
		}
	}
}
