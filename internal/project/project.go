// Package project reads a project's folder as a whole: plan, secrets, manifests, snippets and pins.
package project

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// Project is all that is known of a project. Secrets are paths in it, never contents.
type Project struct {
	// Dir is the project's folder, absolute.
	Dir     string
	Plan    *plan.Plan
	Secrets *secrets.Store
	// HostKeys are the ssh keys by which the machines are known.
	HostKeys remote.HostKeys
	Lock     pins.Lock
	// Manifests are sorted by name.
	Manifests []Manifest
	// ServerConfig and AgentConfig are never nil.
	ServerConfig, AgentConfig K3sConfig

	fsys  fs.FS
	files nixFiles
}

// Find returns the nearest folder from dir upwards that contains plans/.
func Find(dir string) (found string, ok bool) {
	for {
		if info, err := os.Stat(filepath.Join(dir, "plans")); err == nil && info.IsDir() {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// Load is Project of a new [Workspace] of the project in dir. The error is one of the machine, not of the
// project.
func Load(dir string) (*Project, diag.Problems, error) {
	w, err := Open(dir)
	if err != nil {
		return nil, nil, err
	}
	p, problems := w.Project()
	return p, problems, nil
}

func (w *Workspace) load() (*Project, diag.Problems) {
	p := &Project{Dir: w.Dir, fsys: w.fsys}
	var problems, found diag.Problems
	collect := func(found diag.Problems) { problems = append(problems, found...) }
	collect(files.CheckOwn(w.Dir))
	p.Plan, found = w.Plan()
	collect(found)
	p.Secrets, found = secrets.Open(w.Dir, needsOf(p.Plan, w.fsys))
	collect(found)
	p.HostKeys, found = w.HostKeys()
	collect(found)
	if found.Errors() == 0 {
		collect(p.checkHostKeys())
	}
	p.Manifests, found = readManifests(w.fsys)
	collect(found)
	p.files, found = readNixFiles(w.fsys, p.Plan)
	collect(found)
	p.ServerConfig, found = readK3sConfig(w.fsys, serverRole, p.Plan, p.Manifests)
	collect(found)
	p.AgentConfig, found = readK3sConfig(w.fsys, agentRole, p.Plan, p.Manifests)
	collect(found)
	collect(checkK3sFolder(w.fsys))
	collect(checkFolders(w.fsys))
	collect(p.checkDisks())
	collect(p.checkInstallation())
	collect(p.checkSourcePath())
	p.Lock, found = pins.Read(w.fsys)
	collect(found)
	if len(found) == 0 {
		collect(p.Lock.Check(p.Plan.Network.Versions, p.NeedsDisko()))
	}
	problems.Sort()
	return p, problems
}

// Vault reads and writes the project's secrets, wherever they are kept; see [secrets.OpenVault].
func (p *Project) Vault(ask secrets.Ask) (*secrets.Vault, error) {
	return secrets.OpenVault(p.Dir, p.Plan.Network.Secrets, ask)
}

func needsOf(p *plan.Plan, sources fs.FS) secrets.Needs {
	needs := secrets.Needs{Hosts: p.HostNames(), K3s: p.HasK3s(), Partial: !p.Complete, Where: p.Network.Secrets, Sources: sources}
	for _, container := range p.Containers() {
		needs.Containers = append(needs.Containers, container.Name)
	}
	return needs
}

// FS returns the project's files; each is read once, as in [Workspace.FS].
func (p *Project) FS() fs.FS { return p.fsys }

// NeedsDisko reports whether disko lays out the disks of any host.
func (p *Project) NeedsDisko() bool { return slices.ContainsFunc(p.Plan.Hosts, p.Partitioned) }

// existing returns those of the files that the project has.
func (p *Project) existing(files ...string) []string {
	return slices.DeleteFunc(files, func(file string) bool { return !p.files.has(file) })
}

func partitioningFile(host *plan.Host) string {
	return path.Join(files.PartitioningDir, host.Name+".nix")
}
func hardwareFile(host *plan.Host) string { return path.Join(files.HardwareDir, host.Name+".nix") }
func snippetFile(name string) string      { return path.Join(files.SnippetsDir, name+".nix") }

// Partitioned reports whether disko lays out the host's disks.
func (p *Project) Partitioned(host *plan.Host) bool { return p.files.has(partitioningFile(host)) }

// HardwareKnown reports whether the host's hardware configuration was fetched.
func (p *Project) HardwareKnown(host *plan.Host) bool { return p.files.has(hardwareFile(host)) }

// Imports are the Nix files of the user that configure a host: hardware, disks, then snippets from
// the general to the special.
func (p *Project) Imports(host *plan.Host) []string {
	files := []string{hardwareFile(host), partitioningFile(host), snippetFile("all")}
	tags := slices.Concat(host.RoleTags(), host.Tags)
	slices.Sort(tags)
	for _, tag := range tags {
		files = append(files, snippetFile("@"+tag))
	}
	return p.existing(append(files, snippetFile(host.Name))...)
}

// ServerImports are the Nix files of the user that configure the host's server container.
func (p *Project) ServerImports(host *plan.Host) []string {
	if host.Server == nil {
		return nil
	}
	return p.existing(snippetFile(host.Server.Name))
}

// LabelledFileSystems reports whether the host's file systems are found by the labels that the installer
// sets, because neither a disko layout nor the hardware configuration defines them. Snippets do not
// count: what they define overrides these defaults, and is often only a part.
func (p *Project) LabelledFileSystems(host *plan.Host) bool {
	return !p.Partitioned(host) && !p.hardwareDefinesRoot(host)
}

func (p *Project) hardwareDefinesRoot(host *plan.Host) bool {
	text, err := fs.ReadFile(p.fsys, hardwareFile(host))
	return err == nil && definesRoot(text)
}

// checkDisks: a disko layout and a hardware configuration with file systems contradict each other.
func (p *Project) checkDisks() (problems diag.Problems) {
	for _, host := range p.Plan.Hosts {
		if p.Partitioned(host) && p.hardwareDefinesRoot(host) {
			problems = append(problems, diag.Problem{
				File: hardwareFile(host), Severity: diag.Error, Code: "file-conflict",
				Message: "it defines file systems that " + partitioningFile(host) + " creates",
				Hint:    "take fileSystems and swapDevices out of it: nixos-generate-config --show-hardware-config --no-filesystems",
			})
		}
	}
	return problems
}

// checkSourcePath: a nixpkgs on this machine must be there.
func (p *Project) checkSourcePath() diag.Problems {
	source := p.Plan.Network.Versions.NixOS
	if source.Form != plan.SourcePath {
		return nil
	}
	dir := source.Location
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(p.Dir, dir)
	}
	if info, err := os.Stat(filepath.Join(dir, "default.nix")); err == nil && info.Mode().IsRegular() {
		return nil
	}
	file, line := p.Plan.Network.At("versions.nixos")
	return diag.Problems{{
		File: file, Line: line, Column: "versions.nixos", Value: source.Location, Severity: diag.Error, Code: "version-invalid",
		Message: "no nixpkgs at this path", Hint: "the path is relative to the project, and leads to a folder with a default.nix",
	}}
}
