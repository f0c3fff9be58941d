// Package doctor examines what k3splan needs on the machine it runs on: the programs that it starts, and
// the project's pins, keys and rendered files. It changes nothing and asks no other machine.
package doctor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/hive"
	"k3splan/internal/nix"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/release"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

// State is how something is.
type State string

const (
	OK      State = "ok"
	Note    State = "note"    // nothing fails, but it deserves a look
	Missing State = "missing" // NeededFor needs it
	Broken  State = "broken"  // it exists, and does not work, or is too old
)

// Check is the result of one examination. Its texts may come from other programs and files.
type Check struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	Version string `json:"version"`
	Path    string `json:"path"`
	// NeededFor are k3splan's commands, never nil.
	NeededFor []string `json:"needed_for"`
	Message   string   `json:"message"`
	Hint      string   `json:"hint"`
}

// Request is what to examine.
type Request struct {
	// Version is k3splan's own.
	Version string
	// Workspace is nil where there is no project; NoProject is the error if one was named.
	Workspace *project.Workspace
	NoProject error
	// ProjectFlag follows commands in hints (" -p rack"), or is empty.
	ProjectFlag string
	// RenewSchema is the command that writes the schema of this k3splan.
	RenewSchema string
}

// Healthy reports whether nothing is missing or broken.
func Healthy(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { return c.State == Missing || c.State == Broken })
}

// Examine looks at everything, in the order in which it is shown.
func Examine(ctx context.Context, r Request) []Check {
	wanted := slices.Clone(tools)
	var source plan.Source
	pinned := false
	if r.Workspace != nil {
		p, _ := r.Workspace.Plan()
		if p.Network.Secrets.Kind == plan.SecretPass {
			wanted = append(wanted, passTool)
		}
		source = p.Network.Versions.NixOS
		if needed := nix.Needed(source, r.Workspace.Dir); needed != "" {
			wanted[0].oldest = needed
			wanted[0].wants = source.String()
		}
		whole, _ := r.Workspace.Project()
		pinned = whole.Lock.Origin(source).Missing == ""
	}
	checks := make([]Check, 1+len(wanted))
	checks[0] = Check{Name: "k3splan", State: OK, Version: r.Version}
	var asked sync.WaitGroup
	for i, t := range wanted {
		asked.Go(func() { checks[1+i] = examine(ctx, t) })
	}
	asked.Wait()
	for i, c := range checks {
		if c.Name == "colmena" && c.State == Missing {
			checks[i] = fromNixpkgs(c, source, pinned, r.ProjectFlag)
		}
	}
	checks = append(checks, r.project(ctx)...)
	for i := range checks {
		checks[i].NeededFor = text.OrEmpty(checks[i].NeededFor)
	}
	return checks
}

// fromNixpkgs is for a Colmena that is not on PATH: where Nix is, k3splan takes that of the plan's nixpkgs,
// which has one since 21.11. Whether another source has it is known only once Nix has fetched it.
func fromNixpkgs(c Check, source plan.Source, pinned bool, flag string) Check {
	if _, err := exec.LookPath("nix-build"); err != nil {
		return c
	}
	c.State, c.Hint = Note, ""
	switch {
	case source.IsZero():
		c.Message = "not on PATH: it would come from a project's nixpkgs"
	case !pinned:
		c.Message, c.Hint = fmt.Sprintf("not on PATH: it would come from %s, which is not pinned yet", source), "k3splan update"+flag
	case source.Repository == source.Kind.DefaultRepository() && source.Form != plan.SourceCommit:
		// older releases are refused
		c.State, c.Message = OK, "from the pinned nixpkgs, "+source.String()
	default:
		c.Message = fmt.Sprintf("not on PATH: expected in %s (nixpkgs has it since 21.11), which was not looked at", source)
	}
	return c
}

// tool is a program that k3splan runs.
type tool struct {
	program string
	version string // the argument with which it prints its version
	needed  []string
	oldest  string // the first version that works, or ""
	wants   string // what needs that version, if it is not k3splan
}

var tools = []tool{
	// a project's nixpkgs may need a newer one
	{program: "nix-build", version: "--version", needed: []string{"build", "rehearse", "deploy", "boot-stick"}, oldest: release.Oldest().Nix},
	{program: "colmena", version: "--version", needed: []string{"build", "deploy"}},
	{program: "nix-prefetch-url", version: "--version", needed: []string{"update"}},
	{program: "git", version: "--version", needed: []string{"update", "diff", "secrets audit"}},
	{program: "ssh", version: "-V", needed: []string{"deploy", "status", "rollback", "generations", "hardware", "known-hosts", "ssh", "kubeconfig", "token"}},
	{program: "lsblk", version: "--version", needed: []string{"boot-stick"}, oldest: "2.27"}, // oldest: --json
}

// passTool is needed where it keeps the secrets.
var passTool = tool{program: "pass", version: "version", needed: []string{"deploy", "boot-stick", "passwd", "secrets"}}

// askTime is how long a program may take to answer a question.
var askTime = 10 * time.Second

var versionNumber = regexp.MustCompile(`[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.+_-]*`)

// examine asks a program for its version: one that cannot print it does not work.
func examine(ctx context.Context, t tool) Check {
	c := Check{Name: t.program, NeededFor: t.needed, Hint: diag.HintOf(run.Missing(t.program))}
	path, err := exec.LookPath(t.program)
	if err != nil {
		c.State, c.Message = Missing, "not on PATH"
		return c
	}
	c.Path = path
	var said run.Excerpt // ssh prints its version there
	out, err := run.Output(ctx, run.Command{Program: path, Args: []string{t.version}, Stderr: &said, Timeout: askTime, Limit: 1 << 20})
	c.Version = cmp.Or(versionNumber.FindString(out+said.String()), text.FirstLine(out+said.String()))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		c.State, c.Version, c.Message = Broken, "", fmt.Sprintf("no answer within %s", askTime)
		c.Hint = "see what delays it: " + run.Words(path, t.version)
	case err != nil:
		c.State, c.Version, c.Message = Broken, "", text.FirstLine(said.String()+"\n"+err.Error())
	case nix.Older(c.Version, t.oldest):
		c.State, c.Message = Broken, fmt.Sprintf("%s is too old: %s needs %s", c.Version, cmp.Or(t.wants, "k3splan"), t.oldest)
		if t.program == "nix-build" {
			c.Hint = nix.Newer
		}
	default:
		c.State, c.Hint = OK, ""
	}
	return c
}

// toMachines are the commands that need a plan without errors.
var toMachines = []string{"render", "build", "deploy", "boot-stick"}

// project examines the project, if there is one, and what it needs beyond the programs.
func (r Request) project(ctx context.Context) []Check {
	c := Check{Name: "project", State: OK, NeededFor: toMachines}
	if r.Workspace == nil {
		c.State, c.Message, c.Hint = Note, "none here", "k3splan setup DIR makes one; -p DIR names one"
		if r.NoProject != nil {
			c.State, c.Message = Broken, r.NoProject.Error()
		}
		return []Check{c}
	}
	c.Path = r.Workspace.Dir
	p, problems := r.Workspace.Project()
	errs := problems.Errors()
	c.Message = text.Count(len(p.Plan.Hosts), "host")
	switch {
	case errs > 0:
		c.State, c.Message = Broken, fmt.Sprintf("%s in %s", text.Count(errs, "error"), filesIn(problems))
	case len(problems) > 0:
		c.State, c.Message = Note, fmt.Sprintf("%s, %s in %s", c.Message, text.Count(len(problems), "warning"), filesIn(problems))
	}
	if c.State != OK {
		c.Hint = "k3splan validate" + r.ProjectFlag
	}
	checks := []Check{c}
	checks = append(checks, r.pins(p)...)
	checks = append(checks, r.hostKeys(p)...)
	if errs == 0 {
		checks = append(checks, r.rendered(p)...)
	}
	checks = append(checks, r.schema()...)
	return append(checks, builders(ctx, p.Plan)...)
}

// filesIn returns the files with the worst of the problems.
func filesIn(problems diag.Problems) string {
	worst := diag.Warning
	if problems.Errors() > 0 {
		worst = diag.Error
	}
	var files []string
	for _, p := range problems {
		if p.Severity == worst && !slices.Contains(files, p.File) {
			files = append(files, p.File)
		}
	}
	if len(files) > 3 {
		files = append(files[:3], "…")
	}
	return strings.Join(files, ", ")
}

// pins examines the sources of nixpkgs and disko: only update pins them.
func (r Request) pins(p *project.Project) (checks []Check) {
	sources := []plan.Source{p.Plan.Network.Versions.NixOS}
	if p.NeedsDisko() {
		sources = append(sources, p.Plan.Network.Versions.Disko)
	}
	for _, source := range sources {
		if source.IsZero() {
			continue // a problem of the plan
		}
		c := Check{Name: string(source.Kind), State: OK, Message: source.String(), NeededFor: []string{"build", "deploy", "boot-stick"}}
		switch {
		case p.Lock.Origin(source).Missing != "":
			c.State, c.Message, c.Hint = Missing, fmt.Sprintf("%s is not pinned in %s", source, pins.File), "k3splan update"+r.ProjectFlag
		case source.NeedsLock():
			c.Message += ", pinned"
		}
		checks = append(checks, c)
	}
	return checks
}

// hostKeys examines the keys of the hosts: nothing connects to a host whose key is unknown.
func (r Request) hostKeys(p *project.Project) []Check {
	if len(p.Plan.Hosts) == 0 {
		return nil
	}
	var unknown []string
	for _, host := range p.Plan.Hosts {
		if !host.Target.Local && !p.HostKeys.Known(host.Name) {
			unknown = append(unknown, host.Name)
		}
	}
	c := Check{Name: "host keys", State: OK, Message: "all hosts have known keys", NeededFor: []string{"deploy", "status", "ssh"}}
	if len(unknown) > 0 {
		c.State, c.Message = Missing, "unknown for "+strings.Join(unknown, ", ")
		c.Hint = fmt.Sprintf("k3splan known-hosts make%s for new machines, k3splan known-hosts scan%[1]s HOST for a running one", r.ProjectFlag)
	}
	return []Check{c}
}

// rendered compares generated/ with the plan, if it exists. build and deploy render by themselves.
func (r Request) rendered(p *project.Project) []Check {
	if _, err := os.Stat(filepath.Join(p.Dir, hive.Dir)); err != nil {
		return nil
	}
	c := Check{Name: hive.Dir + "/", State: OK, Message: "matches the plan"}
	tree, err := hive.Render(p, k3splan.Files)
	diff := ""
	if err == nil {
		diff, err = tree.Diff(p.Dir)
	}
	if err != nil {
		c.State, c.Message = Broken, err.Error()
	} else if diff != "" {
		c.State, c.Message, c.Hint = Note, "was rendered from another plan", "k3splan render"+r.ProjectFlag
	}
	return []Check{c}
}

// schema compares the schema for editors, if it exists: with an older one they mark keys that are right.
func (r Request) schema() []Check {
	present, err := fs.ReadFile(r.Workspace.FS(), files.SchemaFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not every editor uses it
	}
	c := Check{Name: "schema", State: OK, Path: files.SchemaFile, Message: "of this k3splan"}
	if own, errOwn := fs.ReadFile(k3splan.Files, files.SchemaFile); err != nil || errOwn != nil || !bytes.Equal(present, own) {
		c.State, c.Message, c.Hint = Note, "of another version of k3splan", r.RenewSchema
	}
	return []Check{c}
}

// builders examines whether Nix can build for each platform of the plan.
func builders(ctx context.Context, p *plan.Plan) (checks []Check) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	builds, err := colmena.Platforms(ctx)
	if missing := (*run.MissingError)(nil); errors.As(err, &missing) {
		return nil // one of the programs
	} else if err != nil {
		return []Check{{Name: "nix", State: Broken, Message: text.FirstLine(err.Error()), NeededFor: []string{"build", "deploy", "boot-stick"},
			Hint: "is Nix's daemon running? nix-instantiate --eval -E builtins.currentSystem shows more"}}
	}
	seen := map[string]bool{}
	for _, host := range p.Hosts {
		if seen[host.System] {
			continue
		}
		seen[host.System] = true
		c := Check{Name: host.System, State: OK, Message: "can be built", NeededFor: []string{"build", "deploy"}}
		if !slices.Contains(builds, host.System) {
			c.State, c.Message = Broken, fmt.Sprintf("Nix can only build for %s", strings.Join(builds, ", "))
			c.Hint = "set a remote builder (/etc/nix/machines), or extra-platforms with binfmt, in Nix's configuration"
		}
		checks = append(checks, c)
	}
	return checks
}
