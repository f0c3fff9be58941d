// Package hive renders a project into what Colmena evaluates: the same project always into the
// same bytes.
package hive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"

	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// Render returns the tree of a valid project. files holds the templates in its folder "templates".
func Render(p *project.Project, files fs.FS) (Tree, error) {
	return render(p, files, Dir)
}

// RenderRehearsal returns the tree of a project for a rehearsal (templates/rehearse), to be written to a folder
// dir, relative to the project with forward slashes. The project's secrets are those of the folder above dir.
// data is what the rehearsal is about; it becomes rehearsal.json.
func RenderRehearsal(p *project.Project, files fs.FS, dir string, data any) (Tree, error) {
	tree, err := render(p, files, dir)
	if err != nil {
		return nil, err
	}
	r := &renderer{tree: tree}
	r.copy(files, "rehearse")
	r.data("rehearsal.json", data)
	return r.tree, r.err
}

// render returns the tree for a folder.
func render(p *project.Project, files fs.FS, dir string) (Tree, error) {
	templates, err := template.New("").Funcs(sprig.HermeticTxtFuncMap()).Funcs(template.FuncMap{
		"nixString": NixString,
		"nixPath":   func(file string) string { return nixPath(dir, file) },
	}).Option("missingkey=error").ParseFS(files, "templates/*.tmpl")
	if err != nil {
		return nil, err
	}
	r := &renderer{tree: Tree{}, templates: templates}
	r.execute("hive.nix", "hive.nix.tmpl", struct{ Hosts []*plan.Host }{p.Plan.Hosts})
	r.execute("sources.nix", "sources.nix.tmpl", sourcesOf(p))
	for _, host := range p.Plan.Hosts {
		r.execute(path.Join("hosts", host.Name+".nix"), "host.nix.tmpl", hostData(p, host, path.Dir(dir)))
	}
	r.data("cluster.json", p.Plan.Model())
	r.data("k3s/server.json", p.ServerConfig)
	r.data("k3s/agent.json", p.AgentConfig)
	for _, manifest := range p.Manifests {
		r.tree[path.Join("manifests", manifest.Name)] = manifest.Data
	}
	for _, static := range []string{"modules", "installer", "installer.nix"} {
		r.copy(files, static)
	}
	return r.tree, r.err
}

// renderer collects files and keeps the first error.
type renderer struct {
	tree      Tree
	templates *template.Template
	err       error
}

func (r *renderer) execute(file, name string, data any) {
	var out bytes.Buffer
	if err := r.templates.ExecuteTemplate(&out, name, data); err != nil && r.err == nil {
		r.err = fmt.Errorf("render %s: %w", file, err)
	}
	r.tree[file] = out.Bytes()
}

func (r *renderer) data(file string, value any) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil && r.err == nil {
		r.err = fmt.Errorf("render %s: %w", file, err)
	}
	r.tree[file] = out.Bytes()
}

// copy adds a file, or all files of a folder, that are the same in every project.
func (r *renderer) copy(files fs.FS, name string) {
	const root = "templates"
	err := fs.WalkDir(files, path.Join(root, name), func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		r.tree[strings.TrimPrefix(file, root+"/")], err = fs.ReadFile(files, file)
		return err
	})
	if err != nil && r.err == nil {
		r.err = err
	}
}
