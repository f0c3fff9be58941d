package evaluate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

// Progress is how far a build has come.
type Progress struct {
	// Built and ToBuild count derivations, Copied and ToCopy store paths from other machines.
	Built, ToBuild, Copied, ToCopy int
}

// String returns it in words, "" if nothing is to be done.
func (p Progress) String() string {
	var words []string
	if p.ToBuild > 0 {
		words = append(words, fmt.Sprintf("built %d of %d", p.Built, p.ToBuild))
	}
	if p.ToCopy > 0 {
		words = append(words, fmt.Sprintf("copied %d of %d", p.Copied, p.ToCopy))
	}
	return strings.Join(words, ", ")
}

// BuildRequest is what is to be built.
type BuildRequest struct {
	Hosts []*Host
	// Options are arguments of Nix ("--option", NAME, VALUE).
	Options []string
	// Env is added to Nix's environment.
	Env []string
	// Log gets what Nix and the builders say.
	Log io.Writer
	// Tell is called with the progress and the last line of a builder; it may be nil.
	Tell func(p Progress, line string)
}

// Build has one Nix build the systems of all hosts, on this machine and on those that Nix is configured with. It goes
// on after a failure, so that the error, a [*BuildError], has all of them.
func Build(ctx context.Context, request BuildRequest) error {
	if len(request.Hosts) == 0 {
		return nil
	}
	var derivations []string
	for _, host := range request.Hosts {
		derivations = append(derivations, host.Derivation)
	}
	slices.Sort(derivations)
	derivations = slices.Compact(derivations)
	reader := &buildReader{request: request, kinds: map[int64]int{}}
	args := append([]string{"--realise", "--keep-going", "--no-gc-warning", "--log-format", "internal-json"}, request.Options...)
	err := run.Run(ctx, run.Command{Program: "nix-store", Args: append(args, derivations...), Env: request.Env, Stdout: io.Discard, Stderr: &lines{take: reader.line}})
	var exit *run.ExitError
	if err == nil || !errors.As(err, &exit) || exit.Interrupted != nil {
		return err
	}
	systems := make([]string, len(request.Hosts))
	for i, host := range request.Hosts {
		systems[i] = host.System
	}
	missing, lookErr := invalid(ctx, systems)
	if lookErr != nil {
		return errors.Join(err, lookErr)
	}
	failed := &BuildError{Messages: reader.errors, Err: err}
	for _, host := range request.Hosts {
		if slices.Contains(missing, host.System) {
			failed.Hosts = append(failed.Hosts, host.Name)
		}
	}
	return failed
}

// BuildError is a build in which something failed.
type BuildError struct {
	// Hosts have no system now.
	Hosts []string
	// Messages are what Nix said.
	Messages []string
	Err      error
}

func (e *BuildError) Error() string {
	words := "the systems were not built"
	if len(e.Hosts) > 0 {
		words = fmt.Sprintf("%s not built: %s", text.Count(len(e.Hosts), "system"), text.Some(e.Hosts, 5))
	}
	messages := e.Messages
	if len(messages) == 0 {
		messages = []string{e.Err.Error()}
	}
	return diag.PrintableLines(words + "\n" + strings.Join(messages[:min(len(messages), 3)], "\n"))
}

func (e *BuildError) Unwrap() error { return e.Err }

// Kinds of activities and results in Nix's messages (src/libutil/logging.hh).
const (
	copyPaths   = 103
	builds      = 104
	progress    = 105
	logLine     = 101
	postLogLine = 107
)

// buildReader reads what Nix says while it builds.
type buildReader struct {
	request BuildRequest
	kinds   map[int64]int
	done    Progress
	last    string
	errors  []string
}

func (b *buildReader) line(line string) {
	var m message
	if !m.parse(line) {
		b.log(line)
		return
	}
	switch m.Action {
	case "start":
		b.kinds[m.ID] = m.Kind
		if m.Text == "" && m.StartText != "" {
			b.log(plain(m.StartText))
		}
	case "stop":
		delete(b.kinds, m.ID)
	case "msg":
		b.log(plain(m.Text))
		if m.Raw != "" {
			b.errors = append(b.errors, m.words())
		}
	case "result":
		b.result(m)
	}
}

func (b *buildReader) result(m message) {
	switch m.Kind {
	case logLine, postLogLine:
		var line string
		if len(m.Fields) > 0 && json.Unmarshal(m.Fields[0], &line) == nil {
			b.last = plain(line)
			b.log(b.last)
			b.tell()
		}
	case progress:
		var done, all int
		if len(m.Fields) < 2 || json.Unmarshal(m.Fields[0], &done) != nil || json.Unmarshal(m.Fields[1], &all) != nil {
			return
		}
		switch b.kinds[m.ID] {
		case builds:
			b.done.Built, b.done.ToBuild = done, all
		case copyPaths:
			b.done.Copied, b.done.ToCopy = done, all
		default:
			return
		}
		b.tell()
	}
}

func (b *buildReader) tell() {
	if b.request.Tell != nil {
		b.request.Tell(b.done, b.last)
	}
}

func (b *buildReader) log(line string) {
	if b.request.Log != nil && line != "" {
		fmt.Fprintln(b.request.Log, line)
	}
}
