// Package plan reads a project's tables (hosts.csv, k3s.csv, network.yaml) into a Plan, with everything
// that is wrong with them.
package plan

import (
	"fmt"
	"net/netip"
	"slices"
)

// Plan is the whole rack as its owner means it: checked, normalized, and independent of the order of
// the rows.
type Plan struct {
	// Hosts are sorted by name.
	Hosts   []*Host
	Network Network
	// Strays are the containers of a plan with errors that no host holds, in the order of their rows:
	// their host is unknown or has such a container already, or their type is unknown.
	Strays []Stray
	// OwnColumns are the user's own columns in the order of the tables, hosts.csv first.
	OwnColumns []string
	// Tables are the files or sheets that the plan was read from.
	Tables Tables
	// Complete is false if a row was lost to an earlier problem, so that a name that is not in the
	// plan may still be in the tables.
	Complete bool

	byName map[string]*Host
	// written are the valid addresses of all rows, also of those that are not in the plan because of a
	// problem
	written []netip.Addr
	// k3sRows counts the rows of k3s.csv, also those that belong to no host
	k3sRows int
}

// Tables name files or sheets as problems do: "plans/hosts.csv", "plans/cluster.xlsx!hosts".
type Tables struct{ Hosts, K3s, Network, Checks string }

// Host is a physical machine: one row of hosts.csv, one node of the hive.
type Host struct {
	Name string
	// Interface is the physical network interface, in the kernel's spelling.
	Interface string
	// Address is the host's own static address; the zero Addr with DHCP.
	Address netip.Addr
	// Target is where the host is reached for a deployment.
	Target Target
	// Admin is the login name of the person who looks after the host.
	Admin string
	// Serial is that of the disk for automatic partitioning, in lower case, or "".
	Serial string
	Boot   BootMode
	// System is Nix's name of the platform ("x86_64-linux").
	System string
	// Tags are sorted.
	Tags []string
	// MAC is that of the physical interface ("52:54:00:12:34:56"), or "".
	MAC string
	// State is the release of NixOS ("24.11") that the machine was installed with, whose data formats its
	// stateful services use (system.stateVersion); also in its server container.
	State string
	// Machine is what the tables say about how the host is deployed, rebooted and checked.
	Machine Machine
	// Own are the cells of the user's own columns.
	Own map[string]string

	Server, Agent *Container

	// Line is the line of the row in its table, and Place the same for people:
	// "plans/hosts.csv:3", or "plans/cluster.xlsx!hosts!A3".
	Line  int
	Place string

	// saysDHCP distinguishes a host with DHCP from one whose address is wrong.
	saysDHCP  bool
	row       row
	checkRows []checkRow
}

// TargetText returns where the host is deployed to if that is not its own address: "192.168.1.7:2222",
// "local", else "".
func (h *Host) TargetText() string {
	switch {
	case h.Target.Local:
		return "local"
	case h.Target.Port != 0:
		return fmt.Sprintf("%s:%d", h.Target.Host, h.Target.Port)
	case !h.DHCP() && h.Target.Host == h.Address.String():
		return ""
	}
	return h.Target.Host
}

// DHCP reports whether the host gets its address from the network.
func (h *Host) DHCP() bool { return !h.Address.IsValid() }

// AddressUnknown reports whether a plan with errors says neither which address the host has nor that it
// has DHCP.
func (h *Host) AddressUnknown() bool { return h.DHCP() && !h.saysDHCP }

// Containers are the host's server and agent, as far as it has them.
func (h *Host) Containers() []*Container {
	return slices.DeleteFunc([]*Container{h.Server, h.Agent}, func(c *Container) bool { return c == nil })
}

// BootMode is how a host's firmware starts it.
type BootMode string

const (
	EFI    BootMode = "efi"
	Legacy BootMode = "legacy"
)

// Target is where a host is reached by ssh, or the deploying machine itself.
type Target struct {
	// Host is an IPv4 address or DNS name, "" if Local.
	Host string
	// Port is 0 if ssh's configuration is to decide.
	Port int
	// Local means Colmena's local deployment, without ssh.
	Local bool
}

// Role is what a container does in the k3s cluster.
type Role string

const (
	// Init is the one server that starts the etcd cluster; every other server joins it.
	Init   Role = "init"
	Server Role = "server"
	Agent  Role = "agent"
)

// What returns the role in words: "init server", "server" or "agent".
func (r Role) What() string {
	if r == Init {
		return "init server"
	}
	return string(r)
}

// Container is one row of k3s.csv: a k3s server in a nixos-container, or an agent in podman.
type Container struct {
	Host    *Host
	Name    string
	Role    Role
	Address netip.Addr
	// MAC is that of the container's macvlan interface, or "".
	MAC string
	// Labels ("key=value") and Taints ("key=value:Effect") are sorted, in Kubernetes' spelling.
	Labels, Taints []string
	Own            map[string]string

	// Line and Place are those of the row, as in Host.
	Line  int
	Place string

	row row
}

// Stray is a container that no host holds.
type Stray struct {
	*Container
	// HostName is the host that the row names.
	HostName string
}

// IsServer reports whether the container is a member of etcd.
func (c *Container) IsServer() bool { return c.Role != Agent }

// Host finds a host by its name; nil if there is none.
func (p *Plan) Host(name string) *Host { return p.byName[name] }

// InitServer is the server that starts the cluster; nil if the plan has none.
func (p *Plan) InitServer() *Container {
	for _, server := range p.Servers() {
		if server.Role == Init {
			return server
		}
	}
	return nil
}

// Servers are all k3s servers, sorted by their hosts' names.
func (p *Plan) Servers() []*Container {
	return p.containers(func(h *Host) *Container { return h.Server })
}

// Agents are all k3s agents, sorted by their hosts' names.
func (p *Plan) Agents() []*Container {
	return p.containers(func(h *Host) *Container { return h.Agent })
}

// Containers are all k3s servers, and then all agents.
func (p *Plan) Containers() []*Container { return slices.Concat(p.Servers(), p.Agents()) }

// Names are the names of containers.
func Names(containers []*Container) []string {
	names := make([]string, len(containers))
	for i, c := range containers {
		names[i] = c.Name
	}
	return names
}

func (p *Plan) containers(of func(*Host) *Container) []*Container {
	var found []*Container
	for _, host := range p.Hosts {
		if container := of(host); container != nil {
			found = append(found, container)
		}
	}
	return found
}

// HasK3s reports whether the plan has a k3s cluster, even one with errors.
func (p *Plan) HasK3s() bool { return p.k3sRows > 0 }

// HostNames are the names of all hosts, sorted.
func (p *Plan) HostNames() []string {
	names := make([]string, len(p.Hosts))
	for i, host := range p.Hosts {
		names[i] = host.Name
	}
	return names
}

// Tags are all tags that a user gave to hosts, sorted.
func (p *Plan) Tags() []string {
	var tags []string
	for _, host := range p.Hosts {
		tags = append(tags, host.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// RoleTags are the tags that a host has by what runs on it.
func (h *Host) RoleTags() []string {
	var tags []string
	if h.Server != nil {
		tags = append(tags, tagServer)
		if h.Server.Role == Init {
			tags = append(tags, tagInit)
		}
	}
	if h.Agent != nil {
		tags = append(tags, tagAgent)
	}
	return tags
}

// RoleTags are all tags that hosts have by what runs on them.
func RoleTags() []string { return []string{tagServer, tagAgent, tagInit} }

const (
	tagServer = "k3s-server"
	tagAgent  = "k3s-agent"
	tagInit   = "k3s-init"
)
