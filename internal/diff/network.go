package diff

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/text"
)

// network compares network.yaml, in the order of its keys in the starter file.
func (c *comparison) network() {
	before, now := c.older.Network, c.newer.Network
	c.key("netmask", strconv.Itoa(before.Subnet.Bits()), strconv.Itoa(now.Subnet.Bits()), Change{Risk: Ask, Reason: cutsConnection, Hint: consoleHint})
	c.key("gateway", before.Gateway.String(), now.Gateway.String(), Change{Risk: Ask, Reason: cutsConnection, Hint: consoleHint})
	c.nameservers(texts(before.Nameservers), texts(now.Nameservers))
	c.key("domain", before.Domain, now.Domain, Change{})
	c.key("timezone", before.Timezone, now.Timezone, Change{})
	c.versions(before.Versions, now.Versions)
	if len(c.older.Servers()) > 0 {
		fixed := Change{Risk: Refuse, Reason: "a running cluster cannot change it", Hint: "it needs a new cluster"}
		c.key("pod_cidr", before.PodCIDR.String(), now.PodCIDR.String(), fixed)
		c.key("service_cidr", before.ServiceCIDR.String(), now.ServiceCIDR.String(), fixed)
	} else {
		c.key("pod_cidr", before.PodCIDR.String(), now.PodCIDR.String(), Change{})
		c.key("service_cidr", before.ServiceCIDR.String(), now.ServiceCIDR.String(), Change{})
	}
	c.names(before.TLSSAN, now.TLSSAN)
	c.key("address_range", addressRange(before), addressRange(now), Change{})
	c.key("secrets", keptAs(before), keptAs(now), Change{})
	c.key("pass_prefix", before.Secrets.Prefix, now.Secrets.Prefix, Change{})
}

// addressRange returns the range in network.yaml, or "" if it is the subnet.
func addressRange(n plan.Network) string {
	if n.Where("address_range") == "" {
		return ""
	}
	return n.AddressRange.String()
}

// keptAs returns how the secrets are kept. A plan that was restored from its model does not say.
func keptAs(n plan.Network) string { return string(cmp.Or(n.Secrets.Kind, plan.SecretFiles)) }

// scope is the hosts that a key concerns, in words, and the containers that it restarts. A key that no
// machine reads concerns none, and deploy never reports it.
type scope struct {
	words    string
	hosts    []string
	restarts affects
}

func (c *comparison) scope(key string) scope {
	switch key {
	case "pod_cidr", "service_cidr", "tls_san":
		return scope{"all servers", hostsOf(c.newer.Servers()), servers}
	case "versions.k3s":
		if c.older.Network.Versions.K3s.Minor == c.newer.Network.Versions.K3s.Minor {
			// servers run the patch release that nixpkgs has
			return scope{"all agents", hostsOf(c.newer.Agents()), agents}
		}
		return scope{"all servers and agents", c.k3sHosts(), serversAndAgents}
	case "netmask", "gateway":
		static := slices.DeleteFunc(c.newer.HostNames(), func(name string) bool { return c.newer.Host(name).DHCP() })
		if len(static) < len(c.newer.Hosts) {
			return scope{"all hosts without DHCP", static, serversAndAgents}
		}
		return scope{"all hosts", static, serversAndAgents}
	case "domain", "timezone":
		return scope{"all hosts", c.newer.HostNames(), servers}
	case "address_range":
		return scope{words: "for k3splan add"}
	case "secrets", "pass_prefix":
		return scope{words: "how the project keeps them"}
	case "versions.disko":
		return scope{"all hosts that it partitions", c.newer.HostNames(), nothing}
	case "versions.state":
		hosts := slices.DeleteFunc(c.newer.HostNames(), func(name string) bool { return c.newer.Host(name).State != stateOf(c.newer.Network.Versions) })
		return scope{"all hosts without a state_version", hosts, servers}
	case "versions.permit_ended":
		return scope{words: "a step of an upgrade"}
	default:
		return scope{"all hosts", c.newer.HostNames(), serversAndAgents}
	}
}

// hostsOf are the names of the hosts that containers are on.
func hostsOf(containers []*plan.Container) []string {
	var hosts []string
	for _, container := range containers {
		hosts = append(hosts, container.Host.Name)
	}
	return hosts
}

// key adds the change of a key with a single value, if it changed.
func (c *comparison) key(key, from, to string, change Change) {
	if from == to {
		return
	}
	change.Object, change.Action, change.Name, change.Field = Network, Changed, key, key
	change.From, change.To, change.Where = from, to, c.newer.Network.Where(key)
	scope := c.scope(key)
	c.add(change, fromTo(strings.TrimPrefix(key, "versions."), from, to), scope.hosts, scope.restarts, scope.words)
}

func texts(addresses []netip.Addr) []string {
	texts := make([]string, len(addresses))
	for i, address := range addresses {
		texts[i] = address.String()
	}
	return texts
}

// nameservers compares the nameservers, whose order matters.
func (c *comparison) nameservers(before, now []string) {
	if slices.Equal(before, now) {
		return
	}
	gone, come := text.Without(before, now), text.Without(now, before)
	c.items("nameservers", "nameserver", gone, come)
	if len(gone)+len(come) == 0 {
		c.key("nameservers", strings.Join(before, " "), strings.Join(now, " "), Change{})
	}
}

func (c *comparison) names(before, now []string) {
	c.items("tls_san", "name of the API", text.Without(before, now), text.Without(now, before))
}

// items adds a change for each item of a list that was added or removed.
func (c *comparison) items(key, item string, gone, come []string) {
	scope := c.scope(key)
	add := func(action Action, from, to string) {
		change := Change{Object: Network, Action: action, Name: key, Field: key, From: from, To: to, Where: c.newer.Network.Where(key)}
		c.add(change, fmt.Sprintf("%s %s (%s): %s", item, action, scope.words, from+to), scope.hosts, scope.restarts)
	}
	for _, value := range gone {
		add(Removed, value, "")
	}
	for _, value := range come {
		add(Added, "", value)
	}
}

func (c *comparison) versions(before, now plan.Versions) {
	nixos := Change{}
	if old, new := before.NixOS.Release(), now.NixOS.Release(); old != "" && new != "" && release.Before(new, old) {
		nixos = Change{Risk: Ask, Reason: "older than before"}
	}
	from, fromRelease := strings.CutPrefix(before.NixOS.String(), "nixos-")
	to, toRelease := strings.CutPrefix(now.NixOS.String(), "nixos-")
	if !fromRelease || !toRelease {
		from, to = before.NixOS.String(), now.NixOS.String()
	}
	c.key("versions.nixos", from, to, nixos)
	c.key("versions.k3s", before.K3s.String(), now.K3s.String(), K3sStep(before.K3s, now.K3s))
	c.key("versions.disko", before.Disko.String(), now.Disko.String(), Change{})
	c.key("versions.state", stateOf(before), stateOf(now), Change{Risk: Ask, Reason: losesData, Hint: stateHint})
	c.key("versions.permit_ended", before.PermitEnded, now.PermitEnded, Change{})
}

// stateOf returns the release of the machines' data. A plan without it means the first release.
func stateOf(v plan.Versions) string { return cmp.Or(v.State, release.FirstState) }

var number = regexp.MustCompile(`[0-9]+`)

func numbers(text string) []int {
	var found []int
	for _, digits := range number.FindAllString(text, -1) {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return nil
		}
		found = append(found, n)
	}
	return found
}

// K3sStep returns the risk, the reason and the hint of going from one version to another: k3s goes up
// only, one minor version at a time (Kubernetes' version skew policy).
func K3sStep(before, now plan.K3sVersion) Change {
	if before.Minor == "" || now.Minor == "" {
		return Change{}
	}
	old, new := numbers(before.String()), numbers(now.String())
	common := min(len(old), len(new))
	switch {
	case common == 0: // numbers that no k3s has
		return Change{}
	case slices.Compare(new[:common], old[:common]) < 0:
		return Change{Risk: Refuse, Reason: "k3s cannot go back to an older version",
			Hint: "restore an etcd snapshot that was taken with the older version"}
	case new[0] != old[0]:
		return Change{Risk: Refuse, Reason: "another major version", Hint: "k3s does not document such an upgrade: read its release notes"}
	case new[1] > old[1]+1:
		return Change{Risk: Refuse, Reason: fmt.Sprintf("skips %d.%d", old[0], old[1]+1), Hint: "put versions.k3s back; k3splan upgrade takes one minor version after the other"}
	}
	return Change{}
}
