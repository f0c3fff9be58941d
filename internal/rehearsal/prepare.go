package rehearsal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

// Request is what is to be rehearsed.
type Request struct {
	Project *project.Project
	// Hosts take part (Choose).
	Hosts []*plan.Host
	// From is a revision of git whose plan the machines have first, or "".
	From string
	// Templates are what hosts are rendered from.
	Templates fs.FS
}

// Rehearsal is a folder that Nix can build.
type Rehearsal struct {
	// File is what Nix evaluates.
	File string
	// Waves are those of the change from an earlier plan.
	Waves []Wave
	// Memory is what the virtual machines need together, in MiB.
	Memory int

	folder string
}

// folderName is that of rehearsals within the state folder.
const folderName = "rehearsal"

// Prepare makes the folder of a rehearsal in the project. Close removes it.
func Prepare(ctx context.Context, request Request) (_ *Rehearsal, err error) {
	p := request.Project
	parent, err := files.OwnFolder(p.Dir, files.StateDir, folderName)
	if err != nil {
		return nil, err
	}
	removeLeftovers(parent)
	r := &Rehearsal{}
	if r.folder, err = os.MkdirTemp(parent, ""); err != nil {
		return nil, fmt.Errorf("make a folder for the rehearsal: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	made, err := makeSecrets(p, r.folder)
	if err != nil {
		return nil, err
	}
	after, err := dataOf(p.Plan, request.Hosts)
	if err != nil {
		return nil, err
	}
	r.Memory = after.memory()
	dir := path.Join(files.StateDir, folderName, filepath.Base(r.folder), files.GeneratedDir)
	r.File = filepath.Join(r.folder, files.GeneratedDir, "rehearse")
	rehearsed := withSecrets(p, made.store)
	if request.From == "" {
		return r, render(rehearsed, request.Templates, dir, data{Plan: after, Waves: []Wave{}})
	}
	return r, r.prepareChange(ctx, request, rehearsed, made, dir, after)
}

// prepareChange makes the rehearsal of a change: that of the plan of a revision, in a folder of its own, which
// is then brought to today's.
func (r *Rehearsal) prepareChange(ctx context.Context, request Request, rehearsed *project.Project, made *madeSecrets, dir string, after planData) error {
	repository := filepath.Join(r.folder, "from")
	before, err := checkout(ctx, request.Project.Dir, request.From, repository)
	if err != nil {
		return err
	}
	if err := made.copyTo(filepath.Join(before, files.SecretsDir)); err != nil {
		return err
	}
	p, problems, err := project.Load(before)
	if err != nil {
		return err
	}
	if problems = ofTables(problems); problems.Errors() > 0 {
		return fmt.Errorf("the plan of %s has errors: %s", request.From, problems[slices.IndexFunc(problems, isError)])
	}
	p = withSecrets(p, openSecrets(before, p.Plan))
	var hosts []*plan.Host
	for _, host := range request.Hosts {
		if was := p.Plan.Host(host.Name); was != nil {
			hosts = append(hosts, was)
		}
	}
	if len(hosts) == 0 {
		return fmt.Errorf("none of the hosts was in the plan of %s", request.From)
	}
	was, err := dataOf(p.Plan, hosts)
	if err != nil {
		return err
	}
	if r.Waves, err = waves(p, rehearsed, request); err != nil {
		return err
	}
	if err := render(rehearsed, request.Templates, dir, data{Plan: after, Waves: r.Waves}); err != nil {
		return err
	}
	if err := render(p, request.Templates, files.GeneratedDir, data{Plan: was, Waves: []Wave{}}); err != nil {
		return err
	}
	// both are found from the folder of this file, wherever it is
	relative, err := filepath.Rel(r.folder, filepath.Join(before, files.GeneratedDir, "rehearse"))
	if err != nil {
		return err
	}
	r.File = filepath.Join(r.folder, "change.nix")
	content := "import (./. + " + hive.NixString("/"+filepath.ToSlash(relative)) + ") { to = import (./. + " + hive.NixString("/"+files.GeneratedDir+"/rehearse") + ") { }; }\n"
	return files.Create(r.File, []byte(content), files.Public)
}

// waves returns the order in which the hosts get what has changed.
func waves(before, after *project.Project, request Request) ([]Wave, error) {
	inputs := map[*project.Project]map[string]fingerprint.Inputs{}
	for _, p := range []*project.Project{before, after} {
		tree, err := hive.Render(p, request.Templates)
		if err != nil {
			return nil, err
		}
		if inputs[p], err = fingerprint.Of(p, tree); err != nil {
			return nil, err
		}
	}
	work := map[string]rollout.Work{}
	for _, host := range request.Hosts {
		is, was := inputs[after][host.Name], inputs[before][host.Name]
		if before.Plan.Host(host.Name) == nil || was.Fingerprint() != is.Fingerprint() || len(is.Loose) > 0 {
			work[host.Name] = rollout.Work{System: true, OnlyNames: fingerprint.OnlyNames(was, is) && !is.ReadsNames}
		}
	}
	waves := []Wave{}
	for _, w := range rollout.Waves(after.Plan, work, rollout.Urgent{}, rollout.Limits{Unavailable: 1, Parallel: 1}) {
		waves = append(waves, Wave{w.Kind, w.Hosts})
	}
	return waves, nil
}

// ofTables returns the problems of a plan's own files: an earlier plan has no secrets here, and none of the keys
// that go with them.
func ofTables(problems diag.Problems) diag.Problems {
	return slices.DeleteFunc(problems, func(p diag.Problem) bool {
		return strings.HasPrefix(p.Code, "secret") || strings.HasPrefix(p.Code, "host-key") || strings.HasPrefix(p.File, files.SecretsDir)
	})
}

func isError(p diag.Problem) bool { return p.Severity == diag.Error }

// checkout writes the files of a revision below a folder, and returns where the project is in it.
func checkout(ctx context.Context, dir, revision, to string) (string, error) {
	tree, within, err := diff.Repository(ctx, dir, revision)
	if err != nil {
		return "", err
	}
	skipped := path.Join(within, files.SecretsDir)
	err = fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		target := filepath.Join(to, filepath.FromSlash(name))
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name == skipped:
			return fs.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case !entry.Type().IsRegular():
			return nil // a link could lead anywhere
		}
		content, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
	return filepath.Join(to, filepath.FromSlash(within)), err
}

// render writes the tree of a rehearsal to the folder dir of the project.
func render(p *project.Project, templates fs.FS, dir string, d data) error {
	tree, err := hive.RenderRehearsal(p, templates, dir, d)
	if err != nil {
		return err
	}
	return tree.WriteNew(filepath.Join(p.Dir, filepath.FromSlash(dir)))
}

// withSecrets is a project with other secrets. A nixpkgs that is named by its path is named by the absolute one,
// as the rehearsal is in another folder.
func withSecrets(p *project.Project, store *secrets.Store) *project.Project {
	rehearsed, changed := *p, *p.Plan
	rehearsed.Secrets, rehearsed.Plan = store, &changed
	for _, source := range []*plan.Source{&changed.Network.Versions.NixOS, &changed.Network.Versions.Disko} {
		if source.Form == plan.SourcePath && !filepath.IsAbs(source.Location) {
			source.Location = filepath.Join(p.Dir, source.Location)
		}
	}
	return &rehearsed
}

// madeSecrets are those of one rehearsal.
type madeSecrets struct {
	folder string
	store  *secrets.Store
}

// makeSecrets makes secrets of the kinds that a project has, in the folder secrets of a folder. Nothing of the
// project's own is read.
func makeSecrets(p *project.Project, in string) (*madeSecrets, error) {
	made := &madeSecrets{folder: filepath.Join(in, files.SecretsDir)}
	if err := os.Mkdir(made.folder, 0o700); err != nil {
		return nil, err
	}
	put := func(name string, content []byte) error {
		file := filepath.Join(made.folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return os.WriteFile(file, content, 0o600)
	}
	kinds := map[secrets.TokenKind]bool{secrets.InitToken: p.Secrets.InitToken() != "", secrets.AgentToken: p.Secrets.AgentToken() != ""}
	for kind, wanted := range kinds {
		if !wanted {
			continue
		}
		token, err := secrets.NewToken()
		if err != nil {
			return nil, err
		}
		if err := put(string(kind), []byte(token+"\n")); err != nil {
			return nil, err
		}
	}
	hash, err := secrets.HashPassword([]byte(rand.Text()))
	if err != nil {
		return nil, err
	}
	private, public, err := secrets.NewHostKey("rehearsal")
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{"passwd": []byte(hash + "\n"), "rehearsal": private, "all.pub": ssh.MarshalAuthorizedKey(public)}
	for _, host := range p.Plan.Hosts {
		if p.Secrets.HostKeyFile(host.Name) == "" {
			continue
		}
		if all[secrets.HostKeyName(host.Name)], _, err = secrets.NewHostKey(host.Name); err != nil {
			return nil, err
		}
	}
	for name, content := range all {
		if err := put(name, content); err != nil {
			return nil, err
		}
	}
	made.store = openSecrets(in, p.Plan)
	return made, nil
}

// openSecrets opens secrets that were made for a rehearsal. What could be said about them is not of interest.
func openSecrets(in string, p *plan.Plan) *secrets.Store {
	store, _ := secrets.Open(in, secrets.Needs{Hosts: p.HostNames(), K3s: p.HasK3s()})
	return store
}

func (m *madeSecrets) copyTo(folder string) error {
	if err := os.CopyFS(folder, os.DirFS(m.folder)); err != nil {
		return err
	}
	return filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(name, 0o700)
	})
}

// Close removes the rehearsal.
func (r *Rehearsal) Close() error { return os.RemoveAll(r.folder) }

// removeLeftovers removes what a killed k3splan has left, if it is older than any rehearsal takes.
func removeLeftovers(parent string) {
	entries, _ := os.ReadDir(parent)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(filepath.Join(parent, entry.Name()))
		}
	}
}
