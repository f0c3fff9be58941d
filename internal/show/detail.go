package show

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k3splan/internal/plan"
)

// Detail is one value of a host and where it comes from.
type Detail struct {
	// Of is what has the value: "host", "init server", "server", "agent", "network" or "files".
	Of    string `json:"of"`
	Field string `json:"field"`
	// Value is empty if the plan does not set it and there is no default, or if the plan is wrong there.
	Value string `json:"value"`
	// Where is a place ("plans/hosts.csv:3"), "default" or, if the value follows from others, their names
	// in brackets; empty if there is none, and for files.
	Where string `json:"where"`
}

// File is a file of the project that contributes to a host.
type File struct{ Path, Purpose string }

// Details returns everything about one host.
func Details(p *plan.Plan, h *plan.Host, files []File) []Detail {
	d := details{}
	d.host(h, p.Network)
	for _, c := range h.Containers() {
		d.container(c, p)
	}
	d.network(p, len(h.Containers()) > 0)
	for _, file := range files {
		d = append(d, Detail{Of: "files", Field: file.Purpose, Value: file.Path})
	}
	return d
}

type details []Detail

// add adds a value; where is its place, or "" if it is the default. An invalid value has a place and no
// value.
func (d *details) add(of, field, value, where string) {
	switch {
	case value != "" && where == "":
		where = "default"
	case value == "" && strings.HasPrefix(where, "("):
		where = ""
	}
	*d = append(*d, Detail{of, field, value, where})
}

func (d *details) host(h *plan.Host, n plan.Network) {
	add := func(field, value, where string) { d.add("host", field, value, where) }
	add("name", h.Name, h.Where("name"))
	if n.Domain != "" {
		add("full name", h.Name+"."+n.Domain, "(name, domain)")
	}
	address := "dhcp"
	switch {
	case h.AddressUnknown():
		address = ""
	case !h.DHCP():
		address = h.Address.String()
	}
	add("ip", address, cmp.Or(h.Where("ip"), h.Where("name")))
	target := h.TargetText()
	if target == "" {
		add("target", address, "(ip)")
	} else {
		add("target", target, h.Where("ip"))
	}
	add("interface", h.Interface, h.Where("interface"))
	add("mac", h.MAC, h.Where("mac"))
	add("admin", h.Admin, h.Where("admin"))
	add("boot", string(h.Boot), h.Where("boot"))
	add("system", h.System, h.Where("system"))
	add("serial", h.Serial, h.Where("serial"))
	add("tags", strings.Join(h.Tags, " "), h.Where("tags"))
	add("state_version", h.State, cmp.Or(h.Where("state_version"), n.Where("versions.state")))
	add("role tags", strings.Join(h.RoleTags(), " "), "(type)")
	d.machine(h)
	d.own("host", h.Own, h.Where)
}

// machine adds what the tables say about how the host is deployed, rebooted and checked.
func (d *details) machine(h *plan.Host) {
	m := h.Machine
	add := func(column, value string) { d.add("host", column, value, h.Where(column)) }
	add("role", m.Role)
	add("groups", strings.Join(m.Groups, " "))
	add("reboot_order", fmt.Sprint(m.RebootOrder))
	add("depends_on", strings.Join(m.Dependencies, " "))
	add("strategy", string(m.Orchestration.Strategy))
	add("reboot_delay", fmt.Sprintf("%d s", m.Orchestration.RebootDelay))
	add("criticality", string(m.Orchestration.Criticality))
	for _, c := range m.HealthChecks {
		d.add("host", "check "+c.Name, fmt.Sprintf("%s %s from the %s within %d s", c.Type, c.Target(), c.From, c.Timeout), h.WhereCheck(c.Name))
	}
}

func (d *details) own(of string, own map[string]string, where func(string) string) {
	for _, column := range slices.Sorted(maps.Keys(own)) {
		d.add(of, column, own[column], where(column))
	}
}

func (d *details) container(c *plan.Container, p *plan.Plan) {
	of := c.Role.What()
	add := func(field, value, where string) { d.add(of, field, value, where) }
	add("name", c.Name, c.Where("name"))
	add("ip", Container{Address: c.Address}.AddressText(), c.Where("ip"))
	add("mac", c.MAC, c.Where("mac"))
	add("type", string(c.Role), c.Where("type"))
	if init := p.InitServer(); init != nil && init != c && init.Address.IsValid() {
		add("joins", fmt.Sprintf("%s (%s)", init.Name, init.Address), init.Where("ip"))
	}
	if c.Role == plan.Agent || len(c.Labels)+len(c.Taints) > 0 {
		add("labels", strings.Join(c.Labels, " "), c.Where("labels"))
		add("taints", strings.Join(c.Taints, " "), c.Where("taints"))
	}
	d.own(of, c.Own, c.Where)
}

func (d *details) network(p *plan.Plan, hasK3s bool) {
	n, m := p.Network, p.Model().Network
	add := func(field, key, value string) { d.add("network", field, value, n.Where(key)) }
	netmask := ""
	if n.Subnet.IsValid() {
		netmask = fmt.Sprint(m.Netmask)
	}
	add("netmask", "netmask", netmask)
	add("gateway", "gateway", m.Gateway)
	add("nameservers", "nameservers", strings.Join(m.Nameservers, " "))
	add("domain", "domain", n.Domain)
	add("timezone", "timezone", n.Timezone)
	add("nixos", "versions.nixos", m.Versions.NixOS)
	if hasK3s {
		add("k3s", "versions.k3s", orNothing(m.Versions.K3s))
		add("pod_cidr", "pod_cidr", m.PodCIDR)
		add("service_cidr", "service_cidr", m.ServiceCIDR)
		add("tls_san", "tls_san", strings.Join(m.TLSSAN, " "))
	}
	add("disko", "versions.disko", m.Versions.Disko)
}

// Host draws everything about one host.
func (t Terminal) Host(details []Detail) string {
	var lines []line
	of := ""
	for _, d := range details {
		if d.Of != of {
			of = d.Of
			if len(lines) > 0 {
				lines = append(lines, line{[]string{"", "", ""}, plain})
			}
			style, special := styles[of]
			if !special {
				style = ofHost
			}
			lines = append(lines, line{[]string{strings.ToUpper(of), "", ""}, style})
		}
		lines = append(lines, line{[]string{"  " + d.Field, cmp.Or(d.Value, "–"), d.Where}, plain})
	}
	if len(lines) == 0 {
		return ""
	}
	return t.table([]string{"", "VALUE", "WHERE"}, lines)
}
