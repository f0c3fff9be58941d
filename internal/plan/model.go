package plan

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"

	"gopkg.in/yaml.v3"

	"k3splan/internal/text"
)

// Model is the plan as data: what `configuration` prints, what generated/cluster.json holds, and so
// what Nix sees as config.cluster. Its JSON and YAML are sorted by key; plans that mean the same
// have the same bytes.
type Model struct {
	Hosts   map[string]map[string]any `json:"hosts" yaml:"hosts"`
	Network NetworkModel              `json:"network" yaml:"network"`
}

// NetworkModel is the part of the Model that all hosts share. What the plan does not say is null.
type NetworkModel struct {
	Domain *string `json:"domain" yaml:"domain"`
	// Gateway is an IPv4 address.
	Gateway string `json:"gateway" yaml:"gateway"`
	// InitServer is the name of the host with the init server.
	InitServer  *string  `json:"init_server" yaml:"init_server"`
	Nameservers []string `json:"nameservers" yaml:"nameservers"`
	// Netmask is the length of the prefix, in bits.
	Netmask     int           `json:"netmask" yaml:"netmask"`
	PodCIDR     string        `json:"pod_cidr" yaml:"pod_cidr"`
	ServiceCIDR string        `json:"service_cidr" yaml:"service_cidr"`
	Timezone    *string       `json:"timezone" yaml:"timezone"`
	TLSSAN      []string      `json:"tls_san" yaml:"tls_san"`
	Versions    VersionsModel `json:"versions" yaml:"versions"`
}

// VersionsModel holds what the plan asks for, in normal form; K3s is null without k3s.
type VersionsModel struct {
	Disko       string  `json:"disko" yaml:"disko"`
	K3s         *string `json:"k3s" yaml:"k3s"`
	NixOS       string  `json:"nixos" yaml:"nixos"`
	PermitEnded *string `json:"permit_ended" yaml:"permit_ended"`
	// State is null in models of older versions of k3splan: release.FirstState.
	State *string `json:"state" yaml:"state"`
}

// orNull is nil for the empty string.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Model returns the plan as data.
func (p *Plan) Model() Model {
	m := Model{Hosts: make(map[string]map[string]any, len(p.Hosts)), Network: p.Network.model()}
	for _, host := range p.Hosts {
		m.Hosts[host.Name] = host.Model()
	}
	if init := p.InitServer(); init != nil {
		m.Network.InitServer = &init.Host.Name
	}
	return m
}

// WriteYAML writes the model as YAML, one host after the other: yaml.v3 needs 50 KB for each host of what it
// encodes at once.
func (m Model) WriteYAML(out io.Writer) error {
	buffered := bufio.NewWriter(out)
	write := func(indent string, value any) error {
		var text bytes.Buffer
		encoder := yaml.NewEncoder(&text)
		encoder.SetIndent(2)
		if err := errors.Join(encoder.Encode(value), encoder.Close()); err != nil {
			return err
		}
		for line := range bytes.Lines(text.Bytes()) {
			if len(line) > 1 {
				buffered.WriteString(indent) // the error comes with Flush
			}
			buffered.Write(line)
		}
		return nil
	}
	if len(m.Hosts) == 0 {
		buffered.WriteString("hosts: {}\n")
	} else {
		buffered.WriteString("hosts:\n")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Hosts)) {
		if err := write("  ", map[string]any{name: m.Hosts[name]}); err != nil {
			return err
		}
	}
	if err := write("", map[string]any{"network": m.Network}); err != nil {
		return err
	}
	return buffered.Flush()
}

func (n Network) model() NetworkModel {
	nameservers := make([]string, len(n.Nameservers))
	for i, address := range n.Nameservers {
		nameservers[i] = address.String()
	}
	return NetworkModel{
		Domain: orNull(n.Domain), Gateway: textOf(n.Gateway), Nameservers: nameservers, Netmask: n.Subnet.Bits(),
		PodCIDR: textOf(n.PodCIDR), ServiceCIDR: textOf(n.ServiceCIDR), Timezone: orNull(n.Timezone), TLSSAN: text.OrEmpty(n.TLSSAN),
		Versions: VersionsModel{
			Disko: n.Versions.Disko.String(), K3s: orNull(n.Versions.K3s.String()), NixOS: n.Versions.NixOS.String(),
			PermitEnded: orNull(n.Versions.PermitEnded), State: orNull(n.Versions.State),
		},
	}
}

// textOf returns an address or network as text, and "" where the plan has an error instead of one.
func textOf(value interface {
	IsValid() bool
	String() string
}) string {
	if !value.IsValid() {
		return ""
	}
	return value.String()
}

// Model returns the host as Nix sees it in config.cluster.HOST; own columns are beside the rest.
func (h *Host) Model() map[string]any {
	target := map[string]any{"host": orNull(h.Target.Host), "port": nil, "local": h.Target.Local}
	if h.Target.Port != 0 {
		target["port"] = h.Target.Port
	}
	m := withOwn(h.Own, 20)
	m["name"], m["interface"], m["ip"], m["target"] = h.Name, h.Interface, addressOrNull(h.Address), target
	m["admin"] = map[string]any{"name": h.Admin}
	m["serial"], m["boot"], m["system"], m["tags"], m["mac"] = orNull(h.Serial), string(h.Boot), h.System, text.OrEmpty(h.Tags), orNull(h.MAC)
	m["state_version"] = h.State
	h.Machine.model(m)
	m["k3s"] = map[string]any{"server": containerModel(h.Server), "agent": containerModel(h.Agent)}
	return m
}

func withOwn(own map[string]string, more int) map[string]any {
	m := make(map[string]any, len(own)+more)
	for column, cell := range own {
		m[column] = cell
	}
	return m
}

func addressOrNull(address netip.Addr) *string {
	if !address.IsValid() {
		return nil
	}
	text := address.String()
	return &text
}

func containerModel(c *Container) any {
	if c == nil {
		return nil
	}
	m := withOwn(c.Own, 6)
	labels := make(map[string]string, len(c.Labels))
	for _, label := range c.Labels {
		key, value := splitLabel(label)
		labels[key] = value
	}
	m["name"], m["ip"], m["type"], m["mac"] = c.Name, addressOrNull(c.Address), string(c.Role), orNull(c.MAC)
	m["labels"], m["taints"] = labels, text.OrEmpty(c.Taints)
	return m
}
