// Package show draws a plan: as tables for a terminal, as a picture (SVG), and as a page (HTML). All of
// them come from one [View]. What can be understood of a plan with problems is drawn.
package show

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/text"
)

// View is a plan as people see it, and as `show --json` prints it.
type View struct {
	// Title is the domain, or the name that the caller gives the project.
	Title string `json:"title"`
	// Hosts are sorted by name, numbers in names by their value.
	Hosts   []Host            `json:"hosts"`
	Network plan.NetworkModel `json:"network"`
	// Subnet is "10.0.100.0/24", or "" if the plan has an error in it.
	Subnet string `json:"subnet"`
	Quorum Quorum `json:"quorum"`
	// Used are all addresses in the plan, sorted.
	Used []Address `json:"used"`
	Free Free      `json:"free"`
	// Problems are those of the whole project.
	Problems diag.Problems `json:"problems"`

	own []string // the user's columns, in the order of the tables
}

// Host is a physical machine with what runs on it.
type Host struct {
	Name string `json:"name"`
	// Address is null with DHCP.
	Address *netip.Addr `json:"ip"`
	unknown bool        // the address is wrong
	missing bool        // the plan has no such host
	// Target is where the host is deployed, if not at its own address: "192.168.1.7:2222", "local".
	Target     string            `json:"target"`
	Interface  string            `json:"interface"`
	Admin      string            `json:"admin"`
	Tags       []string          `json:"tags"`
	MAC        string            `json:"mac"`
	Serial     string            `json:"serial"`
	System     string            `json:"system"`
	Boot       string            `json:"boot"`
	Own        map[string]string `json:"own"`
	Containers []Container       `json:"containers"`
	// Problems are those of the host's row, without those of its containers.
	Problems diag.Problems `json:"problems"`
}

// Values that most hosts have, and that are not shown.
const (
	usualSystem = "x86_64-linux"
	usualBoot   = string(plan.EFI)
)

// Container is a k3s server or agent.
type Container struct {
	Name    string            `json:"name"`
	Role    plan.Role         `json:"type"`
	Address netip.Addr        `json:"ip"`
	MAC     string            `json:"mac"`
	Labels  []string          `json:"labels"`
	Taints  []string          `json:"taints"`
	Own     map[string]string `json:"own"`
	// Problems are those of the container's row.
	Problems diag.Problems `json:"problems"`
}

// AddressText returns the container's address, or "" if it is invalid.
func (c Container) AddressText() string {
	if !c.Address.IsValid() {
		return ""
	}
	return c.Address.String()
}

// Quorum is the state of etcd's quorum.
type Quorum struct {
	Servers int `json:"servers"`
	// Needed is the number of servers that the cluster needs to work.
	Needed int `json:"needed"`
	// Spare is the number of servers that it can lose.
	Spare int `json:"spare"`
}

// String returns it in words: "3 servers: survives the loss of 1".
func (q Quorum) String() string {
	switch {
	case q.Servers == 0:
		return "no k3s servers"
	case q.Servers == 1:
		return "1 server: does not survive its loss"
	case q.Spare == 0:
		return fmt.Sprintf("%d servers: survives no loss", q.Servers)
	case q.Servers%2 == 0:
		return fmt.Sprintf("%d servers: survives the loss of %d, as %d would", q.Servers, q.Spare, q.Servers-1)
	}
	return fmt.Sprintf("%d servers: survives the loss of %d", q.Servers, q.Spare)
}

// Address is an address in the LAN and its owner.
type Address struct {
	IP   netip.Addr `json:"ip"`
	Name string     `json:"name"`
	// Kind is "gateway", "nameserver", "host", "target", "init server", "server", "agent" or "tls_san".
	Kind string `json:"kind"`
	// Host is the machine that has it, "" if that is not in the plan.
	Host      string `json:"host"`
	Interface string `json:"interface"`
	MAC       string `json:"mac"`
}

// Free are the unused addresses.
type Free struct {
	Number int `json:"number"`
	// Of is the number of all addresses, used or not, in Range if the plan sets one, else in the subnet.
	Of     int                 `json:"of"`
	Range  *plan.AddressRange  `json:"range"`
	Ranges []plan.AddressRange `json:"ranges"`
	// Next are the addresses that `add` uses; null if there is none.
	Next struct {
		Host   *netip.Addr `json:"host"`
		Server *netip.Addr `json:"server"`
		Agent  *netip.Addr `json:"agent"`
	} `json:"next"`
}

// New returns the view of a plan with its project's problems. name is its title if it has no domain.
func New(p *plan.Plan, problems diag.Problems, name string) *View {
	v := &View{Title: cmp.Or(p.Network.Domain, diag.Printable(name)), Network: p.Model().Network, Problems: text.OrEmpty(problems), own: p.OwnColumns}
	if p.Network.Subnet.IsValid() {
		v.Subnet = p.Network.Subnet.String()
	}
	servers := len(p.Servers())
	v.Quorum.Servers = servers
	v.Quorum.Needed, v.Quorum.Spare = plan.Quorum(servers)
	for _, host := range p.Hosts {
		v.Hosts = append(v.Hosts, newHost(host, problems))
	}
	for _, stray := range p.Strays {
		v.addStray(stray, problems)
	}
	// node-10 comes after node-9
	order := collate.New(language.Und, collate.Numeric)
	slices.SortStableFunc(v.Hosts, func(a, b Host) int { return order.CompareString(a.Name, b.Name) })
	v.Used = used(p)
	v.Free = free(p)
	return v
}

func newHost(h *plan.Host, problems diag.Problems) Host {
	host := Host{
		Name: h.Name, Target: h.TargetText(), Interface: h.Interface, Admin: h.Admin, Tags: text.OrEmpty(h.Tags), MAC: h.MAC,
		Serial: h.Serial, System: h.System, Boot: string(h.Boot), Own: h.Own, Containers: []Container{}, Problems: diag.Problems{},
	}
	if !h.DHCP() {
		host.Address = &h.Address
	}
	host.unknown = h.AddressUnknown()
	host.Problems = append(host.Problems, problemsOf(h, problems)...)
	for _, c := range h.Containers() {
		host.Containers = append(host.Containers, newContainer(c, problems))
	}
	return host
}

func newContainer(c *plan.Container, problems diag.Problems) Container {
	return Container{
		Name: c.Name, Role: c.Role, Address: c.Address, MAC: c.MAC, Labels: text.OrEmpty(c.Labels), Taints: text.OrEmpty(c.Taints), Own: c.Own,
		Problems: problemsOf(c, problems),
	}
}

// addStray adds a container to the host that its row names. A host that is not in the plan is shown
// with the problem that says so.
func (v *View) addStray(stray plan.Stray, problems diag.Problems) {
	container := newContainer(stray.Container, problems)
	i := slices.IndexFunc(v.Hosts, func(h Host) bool { return h.Name == stray.HostName })
	if i < 0 {
		i = len(v.Hosts)
		v.Hosts = append(v.Hosts, Host{Name: stray.HostName, Tags: []string{}, unknown: true, missing: true})
	}
	host := &v.Hosts[i]
	host.Containers = append(host.Containers, container)
	if host.missing {
		host.Problems = append(host.Problems, slices.DeleteFunc(slices.Clone(container.Problems), func(p diag.Problem) bool { return p.Column != "host" })...)
	}
}

// problemsOf returns the problems of a host's or container's row.
func problemsOf(row interface{ Concerns(diag.Problem) bool }, problems diag.Problems) diag.Problems {
	found := diag.Problems{}
	for _, problem := range problems {
		if row.Concerns(problem) {
			found = append(found, problem)
		}
	}
	return found
}

// AddressText returns the host's address: "dhcp" without a fixed one, "?" if it is invalid.
func (h Host) AddressText() string {
	switch {
	case h.unknown:
		return "?"
	case h.Address == nil:
		return "dhcp"
	}
	return h.Address.String()
}

// Has reports whether the host runs a container of one of the roles.
func (h Host) Has(roles ...plan.Role) bool {
	return slices.ContainsFunc(h.Containers, func(c Container) bool { return slices.Contains(roles, c.Role) })
}

// roleText returns the role in words, "?" if it is unknown.
func roleText(role plan.Role) string { return cmp.Or(role.What(), "?") }

// AllProblems returns the problems of the host and its containers.
func (h Host) AllProblems() diag.Problems {
	all := slices.Clone(h.Problems)
	for _, c := range h.Containers {
		all = append(all, c.Problems...)
	}
	return all
}

// used returns all addresses of the plan, sorted. One with two owners is in it twice.
func used(p *plan.Plan) []Address {
	var all []Address
	n := p.Network
	if n.Gateway.IsValid() {
		all = append(all, Address{IP: n.Gateway, Name: "gateway", Kind: "gateway"})
	}
	for _, server := range n.Nameservers {
		if n.Subnet.Contains(server) && server != n.Gateway {
			all = append(all, Address{IP: server, Name: "nameserver", Kind: "nameserver"})
		}
	}
	for _, host := range p.Hosts {
		if !host.DHCP() {
			all = append(all, Address{host.Address, host.Name, "host", host.Name, host.Interface, host.MAC})
		}
		target, err := netip.ParseAddr(host.Target.Host)
		if err == nil && target != host.Address && n.Subnet.Contains(target) {
			all = append(all, Address{IP: target, Name: host.Name, Kind: "target", Host: host.Name, Interface: host.Interface})
		}
		for _, c := range host.Containers() {
			if c.Address.IsValid() {
				all = append(all, Address{c.Address, c.Name, c.Role.What(), host.Name, host.Interface, c.MAC})
			}
		}
	}
	for _, c := range p.Strays {
		if c.Address.IsValid() {
			all = append(all, Address{IP: c.Address, Name: c.Name, Kind: roleText(c.Role), Host: c.HostName, MAC: c.MAC})
		}
	}
	for _, name := range n.TLSSAN {
		address, err := netip.ParseAddr(name)
		known := slices.ContainsFunc(all, func(a Address) bool { return a.IP == address })
		if err == nil && !known && n.Subnet.Contains(address) {
			all = append(all, Address{IP: address, Name: "Kubernetes API", Kind: "tls_san"})
		}
	}
	slices.SortStableFunc(all, func(a, b Address) int { return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Name, b.Name)) })
	return text.OrEmpty(all)
}

func free(p *plan.Plan) Free {
	all := p.Network.AddressRange
	f := Free{Ranges: p.Free(), Of: size(all)}
	if p.Network.Where("address_range") != "" {
		f.Range = &all
	}
	for _, r := range f.Ranges {
		f.Number += size(r)
	}
	var promised []netip.Addr
	for _, next := range []struct {
		role plan.Role
		to   **netip.Addr
	}{{"", &f.Next.Host}, {plan.Server, &f.Next.Server}, {plan.Agent, &f.Next.Agent}} {
		if address := p.NextAddress(next.role, promised...); address.IsValid() {
			*next.to = &address
			promised = append(promised, address)
		}
	}
	return f
}

// size returns the number of addresses in a range, 0 if the range is invalid.
func size(r plan.AddressRange) int {
	if !r.First.IsValid() {
		return 0
	}
	return number(r.Last) - number(r.First) + 1
}

func number(a netip.Addr) int {
	b := a.As4()
	return int(binary.BigEndian.Uint32(b[:]))
}

// short returns a range without what both ends have in common: "10.0.0.4–11".
func short(r plan.AddressRange) string {
	first, last := r.First.As4(), r.Last.As4()
	switch {
	case first == last:
		return r.First.String()
	case [3]byte(first[:3]) == [3]byte(last[:3]):
		return fmt.Sprintf("%s–%d", r.First, last[3])
	}
	return fmt.Sprintf("%s–%s", r.First, r.Last)
}

// facts returns the free addresses, at most max ranges, and the next ones.
func (f Free) facts(max int) []Fact {
	if f.Of == 0 {
		return nil
	}
	number := fmt.Sprintf("%d of %d addresses", f.Number, f.Of)
	if f.Range != nil {
		number = fmt.Sprintf("%d of the %d of address_range %s", f.Number, f.Of, short(*f.Range))
	}
	facts := []Fact{{"free", joined(": ", number, f.some(max))}}
	var next []string
	for _, n := range []struct {
		what    string
		address *netip.Addr
	}{{"host", f.Next.Host}, {"server", f.Next.Server}, {"agent", f.Next.Agent}} {
		if n.address != nil {
			next = append(next, n.what+" "+n.address.String())
		}
	}
	if len(next) > 0 {
		facts = append(facts, Fact{"next", strings.Join(next, ", ")})
	}
	return facts
}

// some returns the first ranges in words, at most max.
func (f Free) some(max int) string {
	var parts []string
	for i, r := range f.Ranges {
		if i == max {
			parts = append(parts, text.Count(len(f.Ranges)-max, "more range"))
			break
		}
		parts = append(parts, short(r))
	}
	return strings.Join(parts, ", ")
}

// summary returns the facts about the cluster as a whole, without its problems.
func (v *View) summary() []Fact {
	facts := []Fact{
		{"rack", v.counts()},
		{"quorum", v.Quorum.String()},
		{"network", joined(", ", v.Subnet, prefixed("gateway ", v.Network.Gateway), prefixed("DNS ", strings.Join(v.Network.Nameservers, " ")))},
	}
	if v.Quorum.Servers > 0 {
		facts = append(facts, Fact{"inside k3s", joined(", ", prefixed("pods ", v.Network.PodCIDR), prefixed("services ", v.Network.ServiceCIDR))})
		if len(v.Network.TLSSAN) > 0 {
			facts = append(facts, Fact{"API also as", strings.Join(v.Network.TLSSAN, ", ")})
		}
	}
	facts = append(facts, Fact{"versions", joined(", ", prefixed("NixOS ", v.Network.Versions.NixOS), prefixed("k3s ", orNothing(v.Network.Versions.K3s)), prefixed("disko ", v.Network.Versions.Disko))})
	if v.Network.Timezone != nil {
		facts = append(facts, Fact{"time zone", *v.Network.Timezone})
	}
	return append(facts, v.Free.facts(6)...)
}

// counts returns the numbers of hosts, servers and agents.
func (v *View) counts() string {
	hosts, agents := 0, 0
	for _, h := range v.Hosts {
		if !h.missing {
			hosts++
		}
		if h.Has(plan.Agent) {
			agents++
		}
	}
	return joined(", ", text.Count(hosts, "host"), some(v.Quorum.Servers, "server"), some(agents, "agent"))
}

// OfSecrets reports whether a problem is one of the secrets. A clone of a project has none of them, and is
// shown all the same.
func OfSecrets(p diag.Problem) bool { return strings.HasPrefix(p.File, files.SecretsDir+"/") }

func problemCounts(problems diag.Problems) string {
	errors := problems.Errors()
	return joined(", ", some(errors, "error"), some(len(problems)-errors, "warning"))
}

// Fact is a named fact.
type Fact struct{ Name, Text string }

func joined(separator string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), separator)
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// orNothing returns a text, or "" for nil.
func orNothing(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// some returns a count, or "" for 0.
func some(n int, noun string) string {
	if n == 0 {
		return ""
	}
	return text.Count(n, noun)
}
