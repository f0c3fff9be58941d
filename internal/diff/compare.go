package diff

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"k3splan/internal/plan"
	"k3splan/internal/text"
)

// Compare returns what the newer plan changes. Both plans must be valid. The order of rows and columns,
// separators, and other ways to write the same value are not changes; the case of letters is one in the
// user's own columns only.
func Compare(older, newer *plan.Plan) Changes {
	c := &comparison{older: older, newer: newer, nowCalled: map[string]string{},
		olderOwners: sync.OnceValue(func() map[netip.Addr][]owner { return ownersOf(older) }),
		newerOwners: sync.OnceValue(func() map[netip.Addr][]owner { return ownersOf(newer) })}
	c.hosts()
	c.containers(Server, older.Servers(), newer.Servers())
	c.containers(Agent, older.Agents(), newer.Agents())
	c.initServer()
	c.network()
	c.columns()
	objects := []Object{Host, Server, Agent, Network, Column}
	slices.SortStableFunc(c.changes, func(a, b Change) int {
		order := cmp.Compare(slices.Index(objects, a.Object), slices.Index(objects, b.Object))
		if order == 0 && a.Object != Network {
			order = cmp.Compare(a.Name, b.Name)
		}
		return order
	})
	return c.changes
}

type comparison struct {
	older, newer *plan.Plan
	// nowCalled are the names that hosts of the older plan have in the newer one. A removed host whose
	// name another host has now gets a name that no host has
	nowCalled map[string]string
	// olderOwners and newerOwners are the owners of the addresses, determined when needed
	olderOwners, newerOwners func() map[netip.Addr][]owner
	changes                  Changes
}

// affects selects the containers that a change restarts.
type affects int

const (
	nothing affects = iota
	servers
	agents
	serversAndAgents
)

// add completes a change with hosts, restarts and risk. The notes go into the brackets of the sentence,
// and so does a reason to ask or refuse.
func (c *comparison) add(change Change, sentence string, hosts []string, restarts affects, notes ...string) {
	change.Hosts = append([]string{}, slices.Compact(slices.Sorted(slices.Values(hosts)))...)
	change.Restarts = c.restarted(change.Hosts, restarts)
	if change.Risk == "" {
		change.Risk = None
	}
	if len(change.Restarts) > 0 && change.Risk.Compare(Restart) < 0 {
		change.Risk, change.Reason = Restart, "restarts k3s"
	}
	if change.Risk == Restart && len(c.newer.Servers()) == 2 && restarts != agents && c.restartsServer(change) {
		change.Risk, change.Reason = Ask, LosesQuorum
	}
	if change.Risk.Compare(Ask) >= 0 {
		notes = append(notes, change.Reason)
	}
	change.Sentence = sentence + inBrackets(notes...)
	c.changes = append(c.changes, change)
}

// restarted returns the names of the containers on the hosts that are in both plans.
func (c *comparison) restarted(hosts []string, what affects) []string {
	names := []string{}
	was := map[string]bool{}
	for _, container := range slices.Concat(c.older.Servers(), c.older.Agents()) {
		was[container.Name] = true
	}
	for _, name := range hosts {
		host := c.newer.Host(name)
		if host == nil {
			continue
		}
		for _, container := range host.Containers() {
			wanted := what == serversAndAgents || container.IsServer() && what == servers || !container.IsServer() && what == agents
			if wanted && was[container.Name] {
				names = append(names, container.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func (c *comparison) restartsServer(change Change) bool {
	return slices.ContainsFunc(c.newer.Servers(), func(s *plan.Container) bool { return slices.Contains(change.Restarts, s.Name) })
}

// pairs matches what is in both plans: by the first way to get a key, then what is left by the next one.
// An empty key, or one that two things have, matches nothing.
func pairs[T comparable](older, newer []T, ways ...func(T) (ofOlder, ofNewer string)) (both map[T]T) {
	both = map[T]T{}
	taken := map[T]bool{}
	for _, way := range ways {
		count := map[string]int{}
		found := map[string]T{}
		for _, n := range newer {
			if _, key := way(n); !taken[n] && key != "" {
				count[key]++
				found[key] = n
			}
		}
		for _, o := range older {
			if _, done := both[o]; done {
				continue
			}
			if key, _ := way(o); count[key] == 1 && !taken[found[key]] {
				both[o] = found[key]
				taken[found[key]] = true
			}
		}
	}
	return both
}

// unpaired returns what has no partner, of either plan.
func unpaired[T comparable](older, newer []T, both map[T]T) (gone, come []T) {
	partners := slices.Collect(maps.Values(both))
	gone = slices.DeleteFunc(slices.Clone(older), func(o T) bool { _, ok := both[o]; return ok })
	come = slices.DeleteFunc(slices.Clone(newer), func(n T) bool { return slices.Contains(partners, n) })
	return gone, come
}

// same makes a way to match from a key that is the same in both plans.
func same[T any](key func(T) string) func(T) (string, string) {
	return func(t T) (string, string) { return key(t), key(t) }
}

func (c *comparison) hosts() {
	both := pairs(c.older.Hosts, c.newer.Hosts,
		// also if another host has its old name now
		same(machine),
		same(func(h *plan.Host) string { return h.Name }),
		// a machine under a new name
		same(func(h *plan.Host) string { return h.Serial }),
		same(func(h *plan.Host) string { return h.MAC }),
		same(addressOfUnknown),
	)
	for _, before := range c.older.Hosts {
		if now := both[before]; now != nil {
			c.nowCalled[before.Name] = now.Name
			c.host(before, now)
		}
	}
	for _, before := range c.older.Hosts {
		if now := both[before]; now != nil {
			c.machine(before, now)
		}
	}
	gone, come := unpaired(c.older.Hosts, c.newer.Hosts, both)
	for _, host := range gone {
		if c.newer.Host(host.Name) != nil {
			c.nowCalled[host.Name] = host.Name + " (removed)"
		}
		c.add(Change{Object: Host, Action: Removed, Name: host.Name, From: addressOrDHCP(host),
			Hint: fmt.Sprintf("while the machine runs, `k3splan decommission %s` takes it out of the cluster and of the plan; a row that is only removed leaves it running: switch it off or reinstall it", host.Name)},
			fmt.Sprintf("host %s removed", host.Name), []string{c.hostNow(host.Name)}, nothing)
	}
	for _, host := range come {
		sentence := fmt.Sprintf("host %s added: %s", host.Name, addressOrDHCP(host))
		if target := host.TargetText(); target != "" {
			sentence += ", target " + target
		}
		c.add(Change{Object: Host, Action: Added, Name: host.Name, To: addressOrDHCP(host), Where: host.Where("name")},
			sentence, []string{host.Name}, nothing)
	}
}

// machine returns everything that identifies the machine of a host and where it is, or "" if that is its
// address alone: cells may have been swapped as well as names.
func machine(h *plan.Host) string {
	if h.Serial == "" && h.MAC == "" {
		return ""
	}
	return strings.Join([]string{h.Serial, h.MAC, address(h), h.TargetText()}, " ")
}

// addressOfUnknown returns the address of a host whose machine nothing else identifies. At the address of
// any other host there may be a new machine.
func addressOfUnknown(h *plan.Host) string {
	if h.Serial != "" || h.MAC != "" {
		return ""
	}
	return address(h)
}

func address(h *plan.Host) string {
	if h.DHCP() {
		return ""
	}
	return h.Address.String()
}

func addressOrDHCP(h *plan.Host) string { return cmp.Or(address(h), "dhcp") }

const (
	cutsConnection = "may cut the connection"
	consoleHint    = "have a console at hand"
	reinstalls     = "needs a reinstallation"
	losesData      = "services may not read their data"
	stateHint      = "only for a machine that is reinstalled: it stays what it was when the machine was installed"
)

func (c *comparison) host(before, now *plan.Host) {
	if before.Name != now.Name {
		c.add(Change{Object: Host, Action: Renamed, Name: now.Name, From: before.Name, To: now.Name, Where: now.Where("name"),
			Hint: "rename the files that are named after it, too, in nixConfigs/, hardware/, partitioning/ and secrets/; k3splan rename does all of it"},
			fmt.Sprintf("host %s renamed to %s", before.Name, now.Name), []string{now.Name}, nothing)
	}
	fields := []struct {
		name     string
		value    func(*plan.Host) string
		reason   string // to ask
		restarts affects
	}{
		{"ip", addressOrDHCP, cutsConnection, nothing},
		{"target", (*plan.Host).TargetText, "", nothing},
		{"interface", func(h *plan.Host) string { return h.Interface }, cutsConnection, serversAndAgents},
		{"admin", func(h *plan.Host) string { return h.Admin }, "", servers},
		{"serial", func(h *plan.Host) string { return h.Serial }, "", nothing},
		{"boot", func(h *plan.Host) string { return string(h.Boot) }, reinstalls, nothing},
		{"system", func(h *plan.Host) string { return h.System }, reinstalls, nothing},
		{"mac", func(h *plan.Host) string { return h.MAC }, "", nothing},
		{"state_version", func(h *plan.Host) string { return h.State }, losesData, servers},
	}
	for _, field := range fields {
		column := field.name
		if column == "target" {
			column = "ip"
		}
		change := Change{Object: Host, Action: Changed, Name: now.Name, Field: field.name, Where: now.Where(column),
			From: field.value(before), To: field.value(now), Reason: field.reason}
		if field.reason != "" {
			change.Risk = Ask
		}
		switch field.reason {
		case cutsConnection:
			change.Hint = consoleHint
		case losesData:
			change.Hint = stateHint
			if change.From == c.older.Network.Versions.State && change.To == c.newer.Network.Versions.State {
				continue // the change of versions.state
			}
		}
		if old, new := sshPort(before), sshPort(now); field.name == "target" && old != new && !now.Target.Local {
			change.Risk, change.Reason, change.Hint = Ask, cutsConnection, portHint(now.Name, old, new)
		}
		if field.name == "ip" && change.From != change.To {
			change.Hint += c.addressHint(before, now)
		}
		c.field(change, []string{now.Name}, field.restarts)
	}
	change := Change{Object: Host, Name: now.Name, Field: "tags", Where: now.Where("tags")}
	c.list(change, "tag", before.Tags, now.Tags, []string{now.Name}, nothing)
	c.own(Change{Object: Host, Name: now.Name}, before.Own, now.Own, now.Where, []string{now.Name})
}

// sshPort returns the port on which a host's sshd listens (templates/modules/ssh.nix). The port of a target
// with another address is that of whatever forwards it.
func sshPort(h *plan.Host) int {
	if !h.DHCP() && h.Target.Host == h.Address.String() && h.Target.Port != 0 {
		return h.Target.Port
	}
	return 22
}

// portHint returns the two steps that move a host's ssh port. k3splan connects to the port in the plan, so
// the deployment that opens the new one still has to go through the old one.
func portHint(host string, old, new int) string {
	return fmt.Sprintf("one deployment cannot do that, as nothing listens on port %d yet. First, with the old row, deploy"+
		" nixConfigs/%s.nix with services.openssh.ports = [ %d %[1]d ]; then change the row, remove that line and deploy again", new, host, old)
}

// addressHint returns how a host gets another address; it continues a hint.
func (c *comparison) addressHint(before, now *plan.Host) string {
	if now.DHCP() {
		return ""
	}
	if first := c.leaveFirst(now.Address, before.Name); first != "" {
		return "; " + first
	}
	_, taken := other(c.newerOwners()[before.Address], now.Name)
	if before.DHCP() || now.Target.Host != now.Address.String() || taken {
		return ""
	}
	return fmt.Sprintf("; with %s@%s as its ip k3splan still reaches the host at the old address", now.Address, before.Address)
}

// leaveFirst returns what to do about an address that something other than self has until the change is
// deployed, which happens host by host; "" if nothing has it.
func (c *comparison) leaveFirst(address netip.Addr, self string) string {
	owner, found := other(c.olderOwners()[address], self)
	switch {
	case !found:
		return ""
	case c.newer.Host(c.hostNow(owner.host.Name)) == nil:
		if owner.name != owner.host.Name {
			owner.words += " on " + owner.host.Name
		}
		return fmt.Sprintf("%s is still the address of %s, which is no longer in the plan: switch it off first", address, owner.words)
	}
	return fmt.Sprintf("%s is still the address of %s, which has to leave it first, in a deployment of its own", address, owner.words)
}

// owner is a host or container that has a static address.
type owner struct {
	name, words string
	host        *plan.Host // the host itself, or the container's
}

func ownersOf(p *plan.Plan) map[netip.Addr][]owner {
	owners := map[netip.Addr][]owner{}
	for _, host := range p.Hosts {
		if !host.DHCP() {
			owners[host.Address] = append(owners[host.Address], owner{host.Name, "host " + host.Name, host})
		}
		for _, container := range host.Containers() {
			owners[container.Address] = append(owners[container.Address], owner{container.Name, container.Role.What() + " " + container.Name, host})
		}
	}
	return owners
}

// other returns the first owner but self.
func other(owners []owner, self string) (owner, bool) {
	for _, o := range owners {
		if o.name != self {
			return o, true
		}
	}
	return owner{}, false
}

// field adds the change of a single value, if it changed.
func (c *comparison) field(change Change, hosts []string, restarts affects) {
	if change.From != change.To {
		c.add(change, fmt.Sprintf("%s %s: %s", change.Object, change.Name, fromTo(change.Field, change.From, change.To)), hosts, restarts)
	}
}

// list adds a change for each item that was added or removed.
func (c *comparison) list(change Change, item string, before, now []string, hosts []string, restarts affects) {
	change.Action = Changed
	for _, gone := range text.Without(before, now) {
		change.From, change.To = gone, ""
		c.add(change, fmt.Sprintf("%s %s: %s %s removed", change.Object, change.Name, item, gone), hosts, restarts)
	}
	for _, come := range text.Without(now, before) {
		change.From, change.To = "", come
		c.add(change, fmt.Sprintf("%s %s: %s %s added", change.Object, change.Name, item, come), hosts, restarts)
	}
}

// own adds the changes of cells in the user's own columns. Columns that were added or removed are one
// change each, see columns.
func (c *comparison) own(change Change, before, now map[string]string, where func(string) string, hosts []string) {
	change.Action = Changed
	for _, column := range slices.Sorted(maps.Keys(now)) {
		if _, had := before[column]; had {
			change.Field, change.From, change.To, change.Where = column, before[column], now[column], where(column)
			change.Hint = ""
			if strings.EqualFold(change.From, change.To) {
				change.Hint = "own columns keep the case of letters; k3splan used to read them in lower case: check Nix code that compares this value"
			}
			c.field(change, hosts, nothing)
		}
	}
}

// columns adds the user's own columns that were added or removed.
func (c *comparison) columns() {
	hostRows := func(p *plan.Plan) (rows []ownRow) {
		for _, host := range p.Hosts {
			rows = append(rows, ownRow{host.Name, host.Own})
		}
		return rows
	}
	containerRows := func(p *plan.Plan) (rows []ownRow) {
		for _, container := range slices.Concat(p.Servers(), p.Agents()) {
			rows = append(rows, ownRow{container.Host.Name, container.Own})
		}
		return rows
	}
	c.ownColumns("the hosts", hostRows(c.older), hostRows(c.newer))
	c.ownColumns("the containers", containerRows(c.older), containerRows(c.newer))
}

type ownRow struct {
	host  string
	cells map[string]string
}

func (c *comparison) ownColumns(of string, before, now []ownRow) {
	if len(before) == 0 || len(now) == 0 {
		return // the column was added or removed with all its rows
	}
	names := func(rows []ownRow) []string { return slices.Sorted(maps.Keys(rows[0].cells)) }
	hosts := func(rows []ownRow) (hosts []string) {
		for _, row := range rows {
			hosts = append(hosts, row.host)
		}
		return hosts
	}
	for _, column := range text.Without(names(before), names(now)) {
		c.add(Change{Object: Column, Action: Removed, Name: column}, fmt.Sprintf("column %s of %s removed", column, of), hosts(now), nothing)
	}
	for _, column := range text.Without(names(now), names(before)) {
		c.add(Change{Object: Column, Action: Added, Name: column}, fmt.Sprintf("column %s of %s added", column, of), hosts(now), nothing)
	}
}
