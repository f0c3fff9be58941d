package hive

import "k3splan/internal/project"

func sourcesOf(p *project.Project) any {
	type s struct {
		Tarball *struct{ URL, SHA256 string }
		Path    string
		Missing string
	}
	return struct{ Nixpkgs, Disko *s }{&s{Path: "<nixpkgs>"}, &s{Path: "<disko>"}}
}
