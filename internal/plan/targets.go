package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

// checkTags refuses a tag that is the name of a host or container: people would confuse the two.
func (l *loader) checkTags() {
	rows := map[int]row{}
	for _, r := range l.hosts.Rows {
		rows[r.Line] = row{r}
	}
	for _, host := range l.plan.Hosts {
		for _, tag := range host.Tags {
			if first, taken := l.names[tag]; taken {
				rows[host.Line].Fail("tags", tag, "name-duplicate", fmt.Sprintf("the tag is also the name of %s", first), "choose another tag")
			}
		}
	}
}

// checkTargets refuses a target that is another machine: two hosts deployed to one target would overwrite
// each other.
func (l *loader) checkTargets() {
	hostAt := map[netip.Addr]*Host{}
	containerAt := map[netip.Addr]*Container{}
	for _, host := range l.plan.Hosts {
		if host.Address.IsValid() {
			hostAt[host.Address] = host
		}
		for _, c := range host.Containers() {
			if c.Address.IsValid() {
				containerAt[c.Address] = c
			}
		}
	}
	for _, host := range l.plan.Hosts {
		if host.Target == (Target{}) || host.Target.Port == 0 && host.Target.Host == host.Address.String() {
			continue // none, or its own: the same address twice is reported as address-duplicate
		}
		r := host.row
		cell := r.Raw("ip")
		address, _ := netip.ParseAddr(host.Target.Host)
		if c := containerAt[address]; c != nil && strings.Contains(cell, "@") {
			r.Fail("ip", cell, "target-invalid", fmt.Sprintf("the target is the address of container %q", c.Name), "write the address of the machine itself")
			continue
		}
		if other := hostAt[address]; other != nil && other != host && host.Target.Port == 0 && strings.Contains(cell, "@") {
			r.Fail("ip", cell, "target-duplicate", fmt.Sprintf("the target is the address of host %q (%s)", other.Name, other.Place),
				"its system would be replaced by this host's")
			continue
		}
		if other := l.hostNamed(host.Target.Host); other != nil && other != host {
			r.Fail("ip", cell, "target-duplicate", fmt.Sprintf("the target is the name of host %q (%s)", other.Name, other.Place),
				"its system would be replaced by this host's")
			continue
		}
		target := host.Target
		if target.Port == 22 {
			target.Port = 0 // the same unless ssh's configuration says otherwise
		}
		unique(l.targets, target, r, "ip", "target-duplicate", "the target is also that of %s", "each host needs its own target", owner{"host", host.Name})
	}
}

// hostNamed returns a host by its name, with or without the plan's domain.
func (l *loader) hostNamed(name string) *Host {
	if domain := l.plan.Network.Domain; domain != "" {
		name = strings.TrimSuffix(name, "."+domain)
	}
	return l.plan.byName[name]
}
