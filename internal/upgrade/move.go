package upgrade

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/files"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/yamlfile"
)

// move sets the versions of a project's plan, and pins the newest commit of what they name. Both files
// change as one: the plan first, so that a lock without the commit shows what is left to do. If the project
// has errors then, it is as before, and they are returned.
func move(ctx context.Context, p *project.Project, keys map[string]string, log io.Writer) (diag.Problems, error) {
	source, err := sourceOf(p.Plan, keys)
	if err != nil {
		return nil, err
	}
	moves, err := pins.Find(ctx, p.Dir, []plan.Source{source}, log)
	if err != nil {
		return nil, err
	}
	unlock, err := files.Lock(p.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	before := map[string][]byte{}
	var changes []files.Change
	change := func(name string, edit func(present []byte) ([]byte, error)) error {
		path := filepath.Join(p.Dir, filepath.FromSlash(name))
		present, err := files.Read(path)
		if err != nil {
			return err
		}
		content, err := edit(present)
		if err == nil && string(content) != string(present) {
			before[path] = present
			changes = append(changes, files.Change{Name: path, Content: content})
		}
		return err
	}
	table, _, _ := strings.Cut(strings.TrimSuffix(p.Plan.Network.Where("versions.nixos"), ":"), ":")
	table, _, _ = strings.Cut(table, "!")
	if err := change(table, func(present []byte) ([]byte, error) { return setVersions(table, present, keys) }); err != nil {
		return nil, err
	}
	if err := change(pins.File, func(present []byte) ([]byte, error) { return pins.Apply(present, moves) }); err != nil {
		return nil, err
	}
	if err := exchange(changes); err != nil {
		return nil, err
	}
	w, err := project.Open(p.Dir)
	if err != nil {
		return nil, err
	}
	if _, problems := w.Project(); problems.Errors() > 0 {
		for i, c := range changes {
			changes[i].Content = before[c.Name]
		}
		slices.Reverse(changes)
		return problems, exchange(changes)
	}
	return nil, nil
}

// sourceOf returns the nixpkgs of a plan whose versions have these keys.
func sourceOf(p *plan.Plan, keys map[string]string) (plan.Source, error) {
	if ref, changes := keys["nixos"]; changes {
		return plan.ParseSource(plan.SourceNixpkgs, ref)
	}
	return p.Network.Versions.NixOS, nil
}

func exchange(changes []files.Change) error {
	x, err := files.Prepare(changes)
	if err != nil {
		return err
	}
	defer x.Discard()
	return x.Commit()
}

// setVersions sets keys of the versions in a table: in network.yaml, in versions.yaml, where they may be on
// the top level, or in a workbook.
func setVersions(table string, text []byte, keys map[string]string) (changed []byte, err error) {
	parent := "versions"
	if table == plan.VersionsFile {
		var top map[string]any
		if yaml.Unmarshal(text, &top) == nil && top["versions"] == nil {
			parent = ""
		}
	}
	changed = text
	// in a fixed order, so that the same edit gives the same bytes
	for _, key := range []string{"nixos", "k3s", "permit_ended"} {
		value, changes := keys[key]
		if !changes {
			continue
		}
		if table == plan.WorkbookFile {
			changed, err = edit.SetNetwork(changed, "versions."+key, value)
		} else {
			changed, err = yamlfile.SetIn(changed, parent, key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s cannot be edited: %w", table, err)
		}
	}
	return changed, nil
}
