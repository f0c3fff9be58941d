package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"k3splan/internal/ask"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/evaluate"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/project"
	"k3splan/internal/text"
)

// systems are the hosts of a deployment as Nix has evaluated them, and the hives that Colmena gets for them. Where
// Colmena does not show how it evaluates, hosts is empty, and it evaluates by itself.
type systems struct {
	program string
	real    *colmena.Hive
	// resolved has the hosts whose deployment is known without the real hive; nil if none is.
	resolved *colmena.Hive
	hosts    map[string]*evaluate.Host
	extra    []string
	env      []string // of Colmena
	logs     string
}

// evaluation is what openSystems is called with.
type evaluation struct {
	hiveFile, program string
	names             []string
	inputs            map[string]fingerprint.Inputs
	// private is for hives in which Colmena can put the links of colmena.ApplyOne.
	private bool
	users   map[string]string
	env     []string
	logs    string
}

// openSystems evaluates hosts, unless that was done before, and prepares the hives for Colmena. The error has the
// messages of all hosts that cannot be evaluated, and what opens is nil only if none can.
func (d *deployment) openSystems(ctx context.Context, e evaluation, progress ask.Progress) (s *systems, err error) {
	s = &systems{program: e.program, hosts: map[string]*evaluate.Host{}, extra: d.request.Args, env: e.env, logs: e.logs}
	if s.real, err = openReal(e); err != nil {
		return nil, err
	}
	all := text.Count(len(e.names), "system")
	defer progress.Drop(all)
	found, err := evaluate.Hosts(ctx, evaluate.Request{
		Dir: d.request.Project.Dir, Hive: e.hiveFile, Colmena: e.program, Inputs: e.inputs,
		Again: func() (map[string]fingerprint.Inputs, error) {
			return inputsOf(d.request.Project, d.environment.Templates)
		},
		Options: colmena.NixOptions(d.request.Args), Memory: d.request.EvalMemory,
		Log: func(host string) (io.WriteCloser, error) { return files.Append(filepath.Join(e.logs, host+".log")) },
		Tell: func(done, of int) {
			progress.Step(all, "evaluating", fmt.Sprintf("%d of %d", done, of))
		},
	}, e.names)
	if unsupported := (*evaluate.UnsupportedError)(nil); errors.As(err, &unsupported) {
		d.view.Warn("Colmena evaluates by itself: %s", diag.Printable(text.FirstLine(unsupported.Error())))
		return s, nil
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, name := range found.Evaluated {
		if host := found.Hosts[name]; host != nil {
			for _, warning := range host.Warnings {
				d.view.Warn("%s: %s", name, diag.PrintableLines(warning))
			}
		}
	}
	s.hosts = found.Hosts
	if err := s.resolve(ctx, d.view, e); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, found.Err()
}

func openReal(e evaluation) (*colmena.Hive, error) {
	if e.private || len(e.users) > 0 {
		return colmena.PrivateHive(e.hiveFile, e.users)
	}
	return colmena.OpenHive(e.hiveFile)
}

// resolve makes the resolved hive, if Colmena accepts it.
func (s *systems) resolve(ctx context.Context, user ask.User, e evaluation) (err error) {
	known := map[string]colmena.Resolved{}
	for name, host := range s.hosts {
		if !host.HasTexts {
			known[name] = host.Resolved()
		}
	}
	if len(known) == 0 {
		return nil
	}
	if s.resolved, err = colmena.ResolvedHive(filepath.Join(filepath.Dir(e.hiveFile), "sources.nix"), known, e.users); err != nil {
		return err
	}
	if err := colmena.Accepts(ctx, s.program, s.resolved, known); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		user.Warn("Colmena evaluates by itself: it does not take what was evaluated: %s", diag.Printable(text.FirstLine(err.Error())))
		err := s.resolved.Close()
		s.resolved = nil
		return err
	}
	return nil
}

// hive returns what Colmena gets for hosts.
func (s *systems) hive(hosts ...string) *colmena.Hive {
	if s.resolved == nil || slices.ContainsFunc(hosts, func(host string) bool { return s.hosts[host] == nil || s.hosts[host].HasTexts }) {
		return s.real
	}
	return s.resolved
}

// result returns the store path of a host's system, or "" if it is unknown.
func (s *systems) result(host string) string {
	if h := s.hosts[host]; h != nil {
		return h.System
	}
	return s.real.Result(host)
}

func (s *systems) close() error {
	var err error
	if s.resolved != nil {
		err = s.resolved.Close()
	}
	return errors.Join(err, s.real.Close())
}

// buildLog is the path of what is said while systems are built; no host has its name.
func buildLog(logs string) string { return filepath.Join(logs, "_build.log") }

// callColmena runs Colmena with arguments for a hive.
type callColmena func(hive *colmena.Hive, args []string, say func(line string)) error

// build builds the systems of hosts and touches none of them: one Nix builds all, and Colmena those that are to be
// built on their hosts, by call.
func (s *systems) build(ctx context.Context, hosts []string, progress ask.Progress, call callColmena) error {
	all := text.Count(len(hosts), "system")
	defer progress.Drop(all)
	var here []*evaluate.Host
	var byColmena []string
	for _, name := range hosts {
		host := s.hosts[name]
		if host == nil || colmena.BuildsOnTarget(s.extra, host.BuildsOnTarget()) {
			byColmena = append(byColmena, name)
		} else {
			here = append(here, host)
		}
	}
	var failed []error
	if len(here) > 0 {
		progress.Step(all, "building", "")
		log, err := files.Append(buildLog(s.logs))
		if err != nil {
			return fmt.Errorf("writing the log: %w", err)
		}
		err = evaluate.Build(ctx, evaluate.BuildRequest{
			Hosts: here, Options: colmena.NixOptions(s.extra), Log: log,
			Tell: func(p evaluate.Progress, line string) {
				progress.Step(all, "building", joined(p.String(), line))
			},
		})
		failed = append(failed, err, log.Close())
	}
	if len(byColmena) > 0 {
		phase := "building on the hosts"
		if s.hosts[byColmena[0]] == nil {
			phase = "evaluating, building"
		}
		say := func(line string) { progress.Step(all, phase, line) }
		say("")
		hive := s.hive(byColmena...)
		failed = append(failed, call(hive, colmena.BuildFirst(hive.File, byColmena, s.extra), say))
	}
	return errors.Join(failed...)
}

func joined(a, b string) string {
	if a != "" && b != "" {
		return a + ": " + b
	}
	return cmp.Or(a, b)
}

// inputsOf returns the inputs of all hosts of the project.
func inputsOf(p *project.Project, templates fs.FS) (map[string]fingerprint.Inputs, error) {
	tree, err := hive.Render(p, templates)
	if err != nil {
		return nil, err
	}
	return fingerprint.Of(p, tree)
}
