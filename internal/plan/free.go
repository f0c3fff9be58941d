package plan

import (
	"net/netip"
	"slices"

	"k3splan/internal/diag"
)

// Free returns the addresses that something new may get, as ranges in their order: those of the
// network's AddressRange that nothing in the tables has.
func (p *Plan) Free() []AddressRange { return p.free(nil) }

func (p *Plan) free(promised []netip.Addr) []AddressRange {
	free := []AddressRange{}
	next, last := p.Network.AddressRange.First, p.Network.AddressRange.Last
	for _, address := range p.taken(promised) {
		if address.Less(next) || last.Less(address) {
			continue
		}
		if next.Less(address) {
			free = append(free, AddressRange{next, address.Prev()})
		}
		if next = address.Next(); !next.IsValid() { // 255.255.255.255
			return free
		}
	}
	if next.IsValid() && !last.Less(next) {
		free = append(free, AddressRange{next, last})
	}
	return free
}

// NextAddress returns the free address that a new server or agent gets, or with no role a new host: the
// first one after those of its kind, and none of those that were promised to others. If there are none of
// its kind, it is the first of address_range or, where that is not set, the first after those of all hosts
// and containers: below them are often other machines. After the last address of the range the search goes
// on among the addresses of the plan, and only then from the first of all. Without a free address it
// returns the zero Addr.
func (p *Plan) NextAddress(role Role, promised ...netip.Addr) netip.Addr {
	var ofKind, all []netip.Addr
	for _, host := range p.Hosts {
		address := host.Address
		if role != "" {
			address = host.containerAddress(role)
		}
		ofKind = append(ofKind, address)
		all = append(all, host.Address, host.containerAddress(Server), host.containerAddress(Agent))
	}
	outside := func(address netip.Addr) bool { return !p.Network.AddressRange.Contains(address) }
	ofKind, all = slices.DeleteFunc(ofKind, outside), slices.DeleteFunc(all, outside)
	if p.Network.Where("address_range") != "" {
		all = nil // a range that was set is to be used from its beginning
	}
	var after []netip.Addr
	if len(ofKind) == 0 {
		ofKind = all
	}
	if len(ofKind) > 0 {
		after = append(after, slices.MaxFunc(ofKind, netip.Addr.Compare))
	}
	if len(all) > 0 {
		after = append(after, slices.MinFunc(all, netip.Addr.Compare))
	}
	free := p.free(promised)
	for _, address := range append(after, netip.Addr{}) {
		for _, r := range free {
			if address.Less(r.First) {
				return r.First
			}
		}
	}
	return netip.Addr{}
}

// containerAddress returns that of the host's agent or, for both roles of servers, its server.
func (h *Host) containerAddress(role Role) netip.Addr {
	container := h.Server
	if role == Agent {
		container = h.Agent
	}
	if container == nil {
		return netip.Addr{}
	}
	return container.Address
}

// taken returns the addresses that nothing new may get, with those that are promised, sorted.
func (p *Plan) taken(promised []netip.Addr) []netip.Addr {
	network := p.Network
	taken := slices.Concat(promised, p.written, []netip.Addr{network.Gateway}, network.Nameservers)
	if network.Subnet.IsValid() {
		taken = append(taken, network.Subnet.Addr(), lastAddress(network.Subnet))
	}
	names := slices.Clone(network.TLSSAN)
	for _, host := range p.Hosts {
		taken = append(taken, host.Address)
		names = append(names, host.Target.Host)
		for _, c := range host.Containers() {
			taken = append(taken, c.Address)
		}
	}
	for _, name := range names {
		if address, err := netip.ParseAddr(name); err == nil {
			taken = append(taken, address)
		}
	}
	taken = slices.DeleteFunc(taken, func(address netip.Addr) bool { return !address.Is4() })
	slices.SortFunc(taken, netip.Addr.Compare)
	return taken
}

// suggest offers a free address to each row that has one that it cannot have, to each a different one.
func (p *Plan) suggest(problems diag.Problems) {
	var promised []netip.Addr
	for i, problem := range problems {
		if len(promised) == maxHints {
			return
		}
		if problem.Code != "address-duplicate" && problem.Code != "address-reserved" || problem.Hint != "" {
			continue
		}
		if next := p.NextAddress(p.roleAt(problem), promised...); next.IsValid() {
			promised = append(promised, next)
			problems[i].Hint = "the next free one is " + next.String()
		}
	}
}

// roleAt returns that of the container in whose row the problem is, or "".
func (p *Plan) roleAt(problem diag.Problem) Role {
	for _, host := range p.Hosts {
		for _, c := range host.Containers() {
			if c.Concerns(problem) {
				return c.Role
			}
		}
	}
	return ""
}
