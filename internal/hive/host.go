package hive

import (
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// host is what host.nix.tmpl works with. Cells of the tables do not pass through it: they reach
// Nix as data, in cluster.json.
type host struct {
	Name string
	// Imports and ServerImports are files of the project for the host and its server container.
	Imports, ServerImports []string
	Disko, HardwareKnown   bool
	LabelledFileSystems    bool
	Secrets                []secret
	AdminKeys, DeployKeys  []string
}

// secret is uploaded from a file of the project or from a command's output.
type secret struct {
	Name, KeyFile string
	KeyCommand    []string
}

func hostData(p *project.Project, h *plan.Host) host {
	data := host{
		Name:                h.Name,
		Imports:             p.Imports(h),
		ServerImports:       p.ServerImports(h),
		Disko:               p.Partitioned(h),
		HardwareKnown:       p.HardwareKnown(h),
		LabelledFileSystems: p.LabelledFileSystems(h),
		AdminKeys:           p.Secrets.Keys(h.Name),
		DeployKeys:          p.Secrets.DeployKeys(h.Name),
	}
	add := func(name, file string) {
		if file != "" {
			data.Secrets = append(data.Secrets, secret{Name: name, KeyFile: file})
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
	return data
}
