package hive

import (
	"path"

	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// sources is the data of sources.nix.tmpl. Disko is nil if no host has a disko layout.
type sources struct{ Nixpkgs, Disko *source }

// source is where nixpkgs or disko comes from; one of the fields is set.
type source struct {
	Tarball *pins.Tarball
	// Path is Nix code.
	Path string
	// Missing is the message of an error for Nix to throw.
	Missing string
}

func sourcesOf(p *project.Project) sources {
	versions := p.Plan.Network.Versions
	s := sources{Nixpkgs: sourceOf(p.Lock, versions.NixOS)}
	for _, host := range p.Plan.Hosts {
		if p.Partitioned(host) {
			s.Disko = sourceOf(p.Lock, versions.Disko)
			break
		}
	}
	return s
}

func sourceOf(lock pins.Lock, from plan.Source) *source {
	origin := lock.Origin(from)
	s := &source{Tarball: origin.Tarball, Missing: origin.Missing, Path: origin.Lookup}
	switch {
	case path.IsAbs(origin.Path):
		s.Path = "(/. + " + NixString(origin.Path) + ")"
	case origin.Path != "":
		// relative to the project, the folder above the rendered one
		s.Path = "(./.. + " + NixString("/"+origin.Path) + ")"
	}
	return s
}
