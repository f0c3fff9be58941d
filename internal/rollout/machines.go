package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k3splan/internal/evaluate"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// NotEvaluatedError is why the hosts could not be evaluated at all, so that only the tables say something about
// them.
type NotEvaluatedError struct{ Err error }

func (e *NotEvaluatedError) Error() string {
	return "the hosts could not be evaluated: " + e.Err.Error()
}
func (e *NotEvaluatedError) Unwrap() error { return e.Err }

// Machines returns what the hosts of a project say about themselves, as NixOS evaluates it, by their names. Hosts
// that have not changed since they were evaluated last are not evaluated again. tell is called with how many of
// the others are done.
//
// The error is a [*NotEvaluatedError] without a Nix or Colmena that could evaluate, and while another process uses the
// hive, which must not change under it; or it is about the hosts that NixOS refuses.
func Machines(ctx context.Context, e Environment, p *project.Project, tell func(done, all int)) (map[string]plan.Machine, error) {
	unlock, err := LockProject(p.Dir)
	if inUse := (*InUseError)(nil); errors.As(err, &inUse) {
		return nil, &NotEvaluatedError{err}
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	tree, err := hive.Render(p, e.Templates)
	if err != nil {
		return nil, err
	}
	inputs, err := fingerprint.Of(p, tree)
	if err != nil {
		return nil, err
	}
	file, remove, err := writeHive(p.Dir, tree)
	if err != nil {
		return nil, err
	}
	defer remove()
	program, err := e.Colmena(file)
	if err != nil {
		return nil, &NotEvaluatedError{err}
	}
	again := func() (map[string]fingerprint.Inputs, error) { return fingerprint.Of(p, tree) }
	result, err := evaluate.Hosts(ctx, evaluate.Request{Dir: p.Dir, Hive: file, Colmena: program, Inputs: inputs, Again: again, Tell: tell}, p.Plan.HostNames())
	switch unsupported := (*evaluate.UnsupportedError)(nil); {
	case errors.As(err, &unsupported):
		return nil, &NotEvaluatedError{unsupported.Err}
	case err != nil:
		return nil, err
	case result.Err() != nil:
		return nil, result.Err()
	}
	machines := make(map[string]plan.Machine, len(result.Hosts))
	for name, host := range result.Hosts {
		value := host.Metadata["machine"]
		if len(value) == 0 || string(value) == "null" { // an evaluator that knows no such option
			machines[name] = p.Plan.Host(name).Machine
			continue
		}
		var m plan.Machine
		if err := json.Unmarshal(value, &m); err != nil {
			return nil, fmt.Errorf("%s: k3splan.machine: %w", name, err)
		}
		slices.Sort(m.Groups)
		slices.Sort(m.Dependencies)
		slices.SortFunc(m.HealthChecks, func(a, b plan.HealthCheck) int { return cmp.Compare(a.Name, b.Name) })
		machines[name] = m
	}
	return machines, nil
}

// writeHive writes a hive where it belongs, and returns a function that removes it unless it was there before.
func writeHive(dir string, tree hive.Tree) (file string, remove func(), err error) {
	_, err = os.Lstat(filepath.Join(dir, hive.Dir))
	isNew := errors.Is(err, fs.ErrNotExist)
	if _, err := tree.Write(dir); err != nil {
		return "", nil, err
	}
	return filepath.Join(dir, hive.Dir, "hive.nix"), func() {
		if isNew {
			_ = hive.Remove(dir) // the next render replaces what is left
		}
	}, nil
}
