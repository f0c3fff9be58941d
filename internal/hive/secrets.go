package hive

import (
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// Secret is what is uploaded to a host beside its system: never its content, only where that comes
// from. One of KeyFile and KeyCommand is set.
type Secret struct {
	// Name tells the kind: "passwd", "server-token", "agent-token".
	Name string
	// KeyFile is relative to the project, with forward slashes.
	KeyFile string
	// KeyCommand prints the secret.
	KeyCommand []string
}

// Secrets are the secrets that a rendered host gets.
func Secrets(p *project.Project, h *plan.Host) []Secret {
	var all []Secret
	for _, s := range hostData(p, h).Secrets {
		all = append(all, Secret(s))
	}
	return all
}
