package hive

import (
	"path"

	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// host is the data of host.nix.tmpl. Cells of the tables are not among it: they reach Nix as data, in
// cluster.json.
type host struct {
	Name string
	// Imports and ServerImports are files of the project for the host and its server container.
	Imports, ServerImports []string
	Disko, HardwareKnown   bool
	LabelledFileSystems    bool
	Secrets                []Secret
	AdminKeys, DeployKeys  []string
}

// Secret is what is uploaded to a host beside its system: never its content, only where that comes
// from. Either KeyFile or Entry is set.
type Secret struct {
	// Name is the kind: "passwd", "ssh-host-key", "server-token", "agent-token".
	Name string
	// KeyFile is the file that holds it in plain text, relative to the project with forward slashes.
	KeyFile string
	// Entry is its name for `k3splan secrets show` and secrets.Vault.
	Entry string
}

// Secrets are the secrets that a rendered host gets.
func Secrets(p *project.Project, h *plan.Host) []Secret {
	var all []Secret
	add := func(name, place string) {
		switch {
		case place == "":
		case p.Secrets.Plain():
			all = append(all, Secret{Name: name, KeyFile: place})
		default:
			all = append(all, Secret{Name: name, Entry: p.Secrets.Name(place)})
		}
	}
	add("passwd", p.Secrets.PasswordFile(h.Name))
	add("ssh-host-key", p.Secrets.HostKeyFile(h.Name))
	// agents without a token of their own join with the servers'
	if h.Server != nil || h.Agent != nil && p.Secrets.AgentToken() == "" {
		add("server-token", p.Secrets.InitToken())
	}
	if h.Server != nil || h.Agent != nil {
		add("agent-token", p.Secrets.AgentToken())
	}
	return all
}

// hostData returns the data of a host whose secrets are in the folder above the rendered one ("." for the
// project's own).
func hostData(p *project.Project, h *plan.Host, above string) host {
	secrets := Secrets(p, h)
	for i, secret := range secrets {
		if secret.KeyFile != "" {
			secrets[i].KeyFile = path.Join(above, secret.KeyFile)
		}
	}
	return host{
		Name:                h.Name,
		Imports:             p.Imports(h),
		ServerImports:       p.ServerImports(h),
		Disko:               p.Partitioned(h),
		HardwareKnown:       p.HardwareKnown(h),
		LabelledFileSystems: p.LabelledFileSystems(h),
		AdminKeys:           p.Secrets.Keys(h.Name),
		DeployKeys:          p.Secrets.DeployKeys(h.Name),
		Secrets:             secrets,
	}
}
