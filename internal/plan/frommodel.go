package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k3splan/internal/release"
)

// FromModel reads the plan back out of a Model's JSON, so that a plan of the past can be compared
// with another one. It trusts what it reads: the Model came from a plan that was valid then. The
// plan has no places in tables.
func FromModel(data []byte) (*Plan, error) {
	var m struct {
		Hosts   map[string]map[string]json.RawMessage
		Network NetworkModel
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	p := &Plan{Complete: true, byName: map[string]*Host{}}
	for _, name := range slices.Sorted(maps.Keys(m.Hosts)) {
		host, err := hostFromModel(m.Hosts[name])
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
		if host.Name != name {
			return nil, fmt.Errorf("host %s has the name %q", name, host.Name)
		}
		p.Hosts = append(p.Hosts, host)
		p.byName[name] = host
		p.k3sRows += len(host.Containers())
	}
	var err error
	p.Network, err = m.Network.network()
	return p, err
}

func hostFromModel(cells map[string]json.RawMessage) (*Host, error) {
	var m struct {
		Name, Interface string
		IP              netip.Addr
		Target          struct {
			Host  string
			Port  int
			Local bool
		}
		Admin       struct{ Name string }
		Serial, MAC string
		Boot        BootMode
		System      string
		Tags        []string
		State       string `json:"state_version"`
		K3s         struct{ Server, Agent map[string]json.RawMessage }
	}
	own, err := split(cells, &m, append([]string{"name", "interface", "ip", "target", "admin", "serial", "boot", "system", "tags", "mac", "k3s", "state_version"}, machineKeys...)...)
	if err != nil {
		return nil, err
	}
	h := &Host{
		Name: m.Name, Interface: m.Interface, Address: m.IP, Target: Target(m.Target), Admin: m.Admin.Name, Serial: m.Serial,
		Boot: m.Boot, System: m.System, Tags: m.Tags, MAC: m.MAC, State: cmp.Or(m.State, release.FirstState), Own: own, saysDHCP: !m.IP.IsValid(),
		Machine: machineFromModel(cells),
	}
	if h.Server, err = containerFromModel(h, m.K3s.Server); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if h.Agent, err = containerFromModel(h, m.K3s.Agent); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return h, nil
}

func containerFromModel(h *Host, cells map[string]json.RawMessage) (*Container, error) {
	if cells == nil {
		return nil, nil
	}
	var m struct {
		Name   string
		IP     netip.Addr
		Type   Role
		MAC    string
		Labels map[string]string
		Taints []string
	}
	own, err := split(cells, &m, "name", "ip", "type", "mac", "labels", "taints")
	if err != nil {
		return nil, err
	}
	c := &Container{Host: h, Name: m.Name, Role: m.Type, Address: m.IP, MAC: m.MAC, Taints: m.Taints, Own: own}
	for key, value := range m.Labels {
		c.Labels = append(c.Labels, key+"="+value)
	}
	slices.Sort(c.Labels)
	return c, nil
}

// split reads k3splan's keys into known and returns the user's own ones.
func split(cells map[string]json.RawMessage, known any, keys ...string) (own map[string]string, err error) {
	ours, theirs := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for key, cell := range cells {
		if slices.Contains(keys, key) {
			ours[key] = cell
		} else {
			theirs[key] = cell
		}
	}
	err = cmp.Or(reread(ours, known), reread(theirs, &own))
	return own, err
}

func reread(from, into any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func (m NetworkModel) network() (Network, error) {
	n := Network{TLSSAN: m.TLSSAN}
	var errs [5]error
	n.Gateway, errs[0] = netip.ParseAddr(m.Gateway)
	n.PodCIDR, errs[1] = netip.ParsePrefix(m.PodCIDR)
	n.ServiceCIDR, errs[2] = netip.ParsePrefix(m.ServiceCIDR)
	n.Versions.NixOS, errs[3] = ParseSource(SourceNixpkgs, m.Versions.NixOS)
	n.Versions.Disko, errs[4] = ParseSource(SourceDisko, m.Versions.Disko)
	for _, text := range m.Nameservers {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return Network{}, err
		}
		n.Nameservers = append(n.Nameservers, address)
	}
	if m.Domain != nil {
		n.Domain = *m.Domain
	}
	if m.Timezone != nil {
		n.Timezone = *m.Timezone
	}
	if m.Versions.K3s != nil {
		version, wrong := parseK3sVersion(*m.Versions.K3s)
		if wrong != nil {
			return Network{}, fmt.Errorf("%q is %s", *m.Versions.K3s, wrong.message)
		}
		n.Versions.K3s = version
	}
	n.Versions.State = release.FirstState
	if m.Versions.State != nil {
		n.Versions.State = *m.Versions.State
	}
	if m.Versions.PermitEnded != nil {
		n.Versions.PermitEnded = *m.Versions.PermitEnded
	}
	n.Subnet = netip.PrefixFrom(n.Gateway, m.Netmask).Masked()
	return n, cmp.Or(errs[:]...)
}
