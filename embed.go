// Package k3splan holds the files that the program carries in itself.
package k3splan

import "embed"

// Files are the starter files that setup writes (plans, manifests, secrets.example) and the
// templates of the rendered tree. A clone of the repository is a project to start from, too.
//
//go:embed plans manifests secrets.example templates
var Files embed.FS
