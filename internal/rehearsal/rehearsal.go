// Package rehearsal tries a plan on virtual machines before it comes to the real ones. A rehearsal is a folder
// with the rendered hosts, secrets that were made for it alone, and a NixOS test of both
// (templates/rehearse): nothing in it belongs to the rack, and no machine of the rack is asked.
package rehearsal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/text"
)

// Choice is which hosts take part.
type Choice struct {
	// Hosts are sorted by name.
	Hosts []*plan.Host
	// Added are those of Hosts that were not named, and Left those of the plan that were not chosen.
	Added, Left []string
}

// Choose returns the hosts of a rehearsal with at most limit virtual machines. Of all hosts (every) the servers
// come first, then those with agents. Named hosts are all chosen, together with the init server's: without it
// no container of theirs would join anything.
func Choose(p *plan.Plan, named []*plan.Host, every bool, limit int) (Choice, error) {
	var c Choice
	chosen := slices.Clone(named)
	if every {
		chosen = slices.Clone(p.Hosts)
		slices.SortStableFunc(chosen, func(a, b *plan.Host) int { return rank(a) - rank(b) })
		for _, host := range chosen[min(limit, len(chosen)):] {
			c.Left = append(c.Left, host.Name)
		}
		chosen = chosen[:min(limit, len(chosen))]
	} else if init := p.InitServer(); init != nil && !slices.Contains(chosen, init.Host) &&
		slices.ContainsFunc(chosen, func(h *plan.Host) bool { return len(h.Containers()) > 0 }) {
		chosen = append(chosen, init.Host)
		c.Added = []string{init.Host.Name}
	}
	if len(chosen) > limit {
		return Choice{}, diag.WithHint(fmt.Errorf("%s, and at most %d are rehearsed", text.Count(len(chosen), "host"), limit), fmt.Sprintf("name fewer, or add --max %d", len(chosen)))
	}
	slices.SortFunc(chosen, func(a, b *plan.Host) int { return strings.Compare(a.Name, b.Name) })
	c.Hosts = chosen
	return c, nil
}

// rank orders hosts by how much a rehearsal of them shows.
func rank(h *plan.Host) int {
	switch {
	case h.Server != nil && h.Server.Role == plan.Init:
		return 0
	case h.Server != nil:
		return 1
	case h.Agent != nil:
		return 2
	}
	return 3
}

// data is rehearsal.json, for templates/rehearse.
type data struct {
	Plan planData `json:"plan"`
	// Waves are those in which hosts are brought to the plan from an earlier one.
	Waves []Wave `json:"waves"`
}

// Wave are hosts that get what has changed together; see [rollout.Waves].
type Wave struct {
	Kind  string   `json:"kind"`
	Hosts []string `json:"hosts"`
}

type planData struct {
	Hosts []machine `json:"hosts"`
}

// machine is a virtual machine.
type machine struct {
	Name string `json:"name"`
	// IP is the host's address; one with DHCP has a free one of the plan's network.
	IP string `json:"ip"`
	// Port is that of sshd.
	Port int `json:"port"`
	// Server and Agent are nil where there is none.
	Server *container `json:"server"`
	Agent  *container `json:"agent"`
	// MemorySize is in MiB.
	MemorySize int `json:"memorySize"`
}

type container struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
}

// What a virtual machine needs, in MiB: more makes a rehearsal of five hosts too large for a laptop, with less
// k3s is killed while it starts.
const (
	hostMemory   = 768
	serverMemory = 1536
	agentMemory  = 1536
)

// dataOf returns the data of the hosts of a plan.
func dataOf(p *plan.Plan, hosts []*plan.Host) (planData, error) {
	d := planData{Hosts: []machine{}}
	var given []netip.Addr
	for _, host := range hosts {
		m := machine{Name: host.Name, IP: host.Address.String(), Port: 22, MemorySize: hostMemory}
		if host.DHCP() {
			address := p.NextAddress("", given...)
			if !address.IsValid() {
				return planData{}, errors.New(host.Name + " has DHCP, and no address of the network is free for its virtual machine")
			}
			given = append(given, address)
			m.IP = address.String()
		} else if host.Target.Host == m.IP && host.Target.Port != 0 {
			m.Port = host.Target.Port // another target may be a router (ssh.nix)
		}
		if c := host.Server; c != nil {
			m.Server = &container{c.Name, c.Address.String()}
			m.MemorySize += serverMemory
		}
		if c := host.Agent; c != nil {
			m.Agent = &container{c.Name, c.Address.String()}
			m.MemorySize += agentMemory
		}
		d.Hosts = append(d.Hosts, m)
	}
	return d, nil
}

// memory is what all machines need together, in MiB.
func (d planData) memory() (sum int) {
	for _, m := range d.Hosts {
		sum += m.MemorySize
	}
	return sum
}
