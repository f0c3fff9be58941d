package evaluate

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/text"
)

// Host is what the evaluation of a host has found.
type Host struct {
	Name string `json:"name"`
	// Derivation and System are the store paths of how the host's system is made, and of the system itself, whether it
	// is built or not.
	Derivation string `json:"derivation"`
	System     string `json:"system"`
	// Deployment are the values of the options deployment.*, without the texts of keys.
	Deployment map[string]json.RawMessage `json:"deployment"`
	// HasTexts reports whether a key's text is in the hive itself. It is kept nowhere, so that Colmena has to read
	// the real hive for this host.
	HasTexts bool `json:"hasTexts,omitempty"`
	// Warnings are those of the host's modules.
	Warnings []string `json:"warnings"`
	// FailedAssertions are why the host has no system; Derivation is then empty.
	FailedAssertions []string `json:"failedAssertions"`
	// Metadata are the values of metadata.nix.
	Metadata map[string]json.RawMessage `json:"metadata"`
}

// BuildsOnTarget reports whether the host's system is to be built on the host itself (deployment.buildOnTarget).
func (h *Host) BuildsOnTarget() bool { return string(h.Deployment["buildOnTarget"]) == "true" }

// Resolved is what Colmena has to know of the host.
func (h *Host) Resolved() colmena.Resolved {
	return colmena.Resolved{Derivation: h.Derivation, System: h.System, Deployment: h.Deployment}
}

// Request is what is to be evaluated, and how.
type Request struct {
	// Dir is the project's folder.
	Dir string
	// Hive is the rendered hive, with sources.nix beside it.
	Hive string
	// Colmena is the program whose evaluator is used.
	Colmena string
	// Inputs are those of the hosts: what is remembered is valid for the same ones.
	Inputs map[string]fingerprint.Inputs
	// Again returns the inputs as they are after the evaluation: what changed in the meantime is in the system, or not.
	// If it is nil, nothing changes.
	Again func() (map[string]fingerprint.Inputs, error)
	// Options are arguments of Nix ("--option", NAME, VALUE).
	Options []string
	// Memory is what all processes may take together, in bytes; 0 is most of what is available.
	Memory int64
	// Log is what Nix says about a host, with the trace of an error. Nothing is kept if it is nil.
	Log func(host string) (io.WriteCloser, error)
	// Tell is called with how many of all hosts that are not remembered are done, with 0 first; it may be nil.
	Tell func(done, all int)
}

// Result is what was found.
type Result struct {
	// Hosts are those that have a system, by their names.
	Hosts map[string]*Host
	// Failed are why the others have none: Nix's own messages, or failed assertions.
	Failed map[string]error
	// Evaluated are the hosts that were not remembered, sorted.
	Evaluated []string
}

// Err is the error of all hosts that have failed, or nil.
func (r *Result) Err() error {
	var lines []string
	hint := ""
	for _, name := range slices.Sorted(maps.Keys(r.Failed)) {
		lines = append(lines, name+": "+r.Failed[name].Error())
		hint = diag.HintOf(r.Failed[name])
	}
	if len(lines) == 0 {
		return nil
	}
	return diag.WithHint(errors.New(strings.Join(lines, "\n")), hint)
}

// Err is what is wrong with a host that was evaluated, or nil.
func (h *Host) Err() error {
	if len(h.FailedAssertions) == 0 {
		return nil
	}
	return fmt.Errorf("%s failed:\n- %s", text.Count(len(h.FailedAssertions), "assertion"), strings.Join(h.FailedAssertions, "\n- "))
}

// UnsupportedError is a Colmena that does not show how it evaluates, so that it has to evaluate by itself.
type UnsupportedError struct{ Err error }

func (e *UnsupportedError) Error() string { return e.Err.Error() }
func (e *UnsupportedError) Unwrap() error { return e.Err }

//go:embed evaluate.nix metadata.nix
var code embed.FS

// Hosts returns what Nix makes of the hosts. The error is about all of them, an [UnsupportedError] among others; what
// is wrong with single hosts is in the result.
func Hosts(ctx context.Context, request Request, names []string) (*Result, error) {
	evaluator, err := colmena.ShowEvaluator(ctx, request.Colmena, request.sources())
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &UnsupportedError{err}
	}
	memory, err := request.remember(evaluator)
	if err != nil {
		return nil, err
	}
	result := &Result{Hosts: map[string]*Host{}, Failed: map[string]error{}}
	known, err := memory.recall(ctx, names)
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, name := range names {
		if known[name] == nil {
			unknown = append(unknown, name)
		}
	}
	maps.Copy(result.Hosts, known)
	if len(unknown) > 0 {
		if request.Tell != nil {
			request.Tell(0, len(unknown))
		}
		if err := request.evaluate(ctx, evaluator, unknown, result); err != nil {
			return nil, err
		}
		if err := request.refuseChanged(result); err != nil {
			return nil, err
		}
		if err := memory.keep(ctx, result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// refuseChanged refuses the hosts whose inputs changed while they were evaluated: neither the old ones nor the new ones
// say what their systems are made from.
func (r *Request) refuseChanged(result *Result) error {
	if r.Again == nil {
		return nil
	}
	now, err := r.Again()
	if err != nil {
		return fmt.Errorf("looking at the project after the evaluation: %w", err)
	}
	for _, name := range result.Evaluated {
		if result.Hosts[name] != nil && r.Inputs[name].Fingerprint() != now[name].Fingerprint() {
			delete(result.Hosts, name)
			result.Failed[name] = diag.WithHint(errors.New("files that it is made from changed while it was evaluated"), "run the command again")
		}
	}
	return nil
}

func (r *Request) sources() string { return filepath.Join(filepath.Dir(r.Hive), "sources.nix") }

// evaluate evaluates hosts, all of them, into the result.
func (r *Request) evaluate(ctx context.Context, evaluator *colmena.Evaluator, names []string, result *Result) error {
	hive, err := filepath.Abs(r.Hive)
	if err != nil {
		return fmt.Errorf("finding the hive: %w", err)
	}
	folder, err := files.TempFolder("k3splan-evaluate-", func(string) bool { return true })
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := evaluator.Write(folder); err != nil {
		return err
	}
	if err := os.CopyFS(folder, code); err != nil {
		return fmt.Errorf("writing the evaluation: %w", err)
	}
	p := newPool(r, folder, hive, names)
	if err := p.run(ctx); err != nil {
		return err
	}
	for name, o := range p.outcomes {
		switch {
		case o.err != nil:
			result.Failed[name] = o.err
		case o.host.Err() != nil:
			result.Failed[name] = o.host.Err()
		default:
			result.Hosts[name] = o.host
		}
	}
	result.Evaluated = slices.Sorted(slices.Values(names))
	return nil
}
