package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/text"
)

var roles = map[string]Role{
	"init": Init, "init-server": Init, "init_server": Init, "server": Server, "agent": Agent,
}

// roleSynonyms are other words for the roles.
var roleSynonyms = map[string]Role{
	"master": Server, "control-plane": Server, "controlplane": Server, "controller": Server, "etcd": Server,
	"worker": Agent, "node": Agent, "minion": Agent,
}

func (l *loader) readContainers() {
	l.plan.OwnColumns = append(l.plan.OwnColumns, text.Without(l.k3s.Own(), l.plan.OwnColumns)...)
	decidable := l.k3s.Complete
	var init *row
	servers := 0
	for i, cells := range decode[containerCells](l.k3s) {
		r := row{l.k3s.Rows[i]}
		container := l.readContainer(r, cells)
		switch container.Role {
		case "":
			decidable, l.k3s.Complete = false, false
		case Init, Server:
			servers++
		}
		if container.Host == nil {
			l.k3s.Complete = false // a server that may have its own files
		}
		if container.Role != Init {
			continue
		}
		if init != nil {
			r.Fail("type", r.Raw("type"), "init-duplicate",
				fmt.Sprintf("there is already an init server (%s); a second one would start another cluster", l.k3s.Place(init.Line, "type")),
				`write "server" for all but one`)
			continue
		}
		init = &r
	}
	if !decidable || len(l.k3s.Rows) == 0 {
		return
	}
	switch {
	case init == nil && servers == 0:
		l.k3s.Report(diag.Error, 0, "type", "", "init-missing", "the agents have no server to join",
			`add a row of type "init": the server that starts the cluster`)
	case init == nil:
		l.k3s.Report(diag.Error, 0, "type", "", "init-missing", "no server starts the cluster",
			`write "init" for one of the servers`)
	case servers%2 == 0 && l.k3s.Errors() == 0:
		l.k3s.Report(diag.Warning, 0, "type", "", "servers-even",
			fmt.Sprintf("%d servers survive the loss of no more servers than %d would", servers, servers-1),
			"etcd needs a majority: use an odd number of servers")
	}
}

func (l *loader) readContainer(r row, cells containerCells) *Container {
	c := &Container{Name: cells.Name, Own: r.Own(), Line: r.Line, Place: r.Table.Place(r.Line, "name"), row: r}
	if r.required("name", c.Name) {
		l.checkName(r, c.Name)
	}
	if r.required("type", cells.Type) {
		var known bool
		if c.Role, known = roles[cells.Type]; !known {
			words := []string{"init", "server", "agent"}
			hint := cmp.Or(diag.DidYouMean(cells.Type, words), "init, server or agent")
			if meant := roleSynonyms[cells.Type]; meant != "" {
				hint = fmt.Sprintf("did you mean %q?", meant)
			}
			r.Fail("type", r.Raw("type"), "type-unknown", "unknown type", hint)
		}
	}
	if c.Role == Agent {
		r.check("name", checkAgentName(c.Name))
	}
	if r.required("ip", cells.IP) {
		var wrong *finding
		c.Address, wrong = parseAddress(cells.IP)
		r.checkAddress("ip", wrong)
	}
	if cells.MAC != "" {
		var wrong *finding
		c.MAC, wrong = parseMAC(cells.MAC)
		r.check("mac", wrong)
	}
	l.readLabels(r, c, cells)

	repeats := l.attach(r, c, cells.Host)
	by := owner{"container", c.Name}
	if c.Name != "" {
		unique(l.names, c.Name, r, "name", "name-duplicate", "the name is taken by %s", "names are unique among hosts and containers", by)
	}
	if repeats {
		return c
	}
	if c.Address.IsValid() {
		unique(l.ips, c.Address, r, "ip", "address-duplicate", "the address is taken by %s", "", by)
		l.addressed = append(l.addressed, addressed{r, c.Address})
	}
	if c.MAC != "" {
		unique(l.macs, c.MAC, r, "mac", "mac-duplicate", "the MAC address is also that of %s", "", by)
	}
	return c
}

// attach puts the container on its host; repeats means that the row repeats an earlier one, which is one
// problem and not several.
func (l *loader) attach(r row, c *Container, hostName string) (repeats bool) {
	if !r.required("host", hostName) {
		return false
	}
	host := l.plan.byName[hostName]
	if host == nil {
		l.plan.Strays = append(l.plan.Strays, Stray{c, hostName})
		if l.hosts.Complete {
			hint := ""
			if l.unknownHosts++; l.unknownHosts <= maxHints {
				hint = diag.DidYouMean(hostName, l.plan.HostNames())
			}
			r.Fail("host", r.Raw("host"), "host-unknown", "no host of this name in "+l.hosts.File,
				cmp.Or(hint, "add it there, or correct the name"))
		}
		return false
	}
	c.Host = host
	if host.saysDHCP {
		r.Fail("host", r.Raw("host"), "dhcp-with-containers", fmt.Sprintf("host %q has no static address, which containers need", host.Name),
			"give it one in "+l.hosts.Place(host.Line, "ip"))
	}
	if c.Role == "" {
		l.plan.Strays = append(l.plan.Strays, Stray{c, hostName})
		return false
	}
	slot, code, kind := &host.Server, "server-duplicate", "server"
	if c.Role == Agent {
		slot, code, kind = &host.Agent, "agent-duplicate", "agent"
	}
	if first := *slot; first != nil {
		if first.Name == c.Name {
			return first.Address == c.Address // reported as name-duplicate
		}
		l.plan.Strays = append(l.plan.Strays, Stray{c, hostName})
		r.Fail("host", r.Raw("host"), code, fmt.Sprintf("the host already has %s: %q (%s)", text.WithArticle(kind), first.Name, first.Place),
			fmt.Sprintf("at most one %s on each host", kind))
		return false
	}
	*slot = c
	return false
}

func (l *loader) readLabels(r row, c *Container, cells containerCells) {
	each := func(column, cell string, check func(string) *finding, key func(string) string) []string {
		var items []string
		seen := map[string]bool{}
		for _, item := range strings.Fields(cell) {
			if wrong := check(item); wrong != nil {
				r.Fail(column, item, wrong.code, wrong.message, wrong.hint)
				continue
			}
			if seen[key(item)] {
				r.Fail(column, item, strings.TrimSuffix(column, "s")+"-invalid", "the key is given twice", "")
				continue
			}
			seen[key(item)] = true
			items = append(items, item)
		}
		slices.Sort(items)
		return items
	}
	labelKey := func(label string) string { key, _ := splitLabel(label); return key }
	// one taint a key and effect, as the API server demands
	// key=:Effect and key:Effect are the same
	cells.Taints = strings.ReplaceAll(cells.Taints, "=:", ":")
	taintKey := func(taint string) string {
		i := strings.LastIndex(taint, ":")
		return labelKey(taint[:i]) + taint[i:]
	}
	c.Labels = each("labels", cells.Labels, checkLabel, labelKey)
	c.Taints = each("taints", cells.Taints, checkTaint, taintKey)
	if c.Role == Init || c.Role == Server {
		for column, cell := range map[string]string{"labels": cells.Labels, "taints": cells.Taints} {
			if cell != "" {
				r.Warn(column, r.Raw(column), "label-ignored", "this has no effect: a server runs no workloads and is not a node of the cluster", "give it to the agent")
			}
		}
	}
}

func splitLabel(label string) (key, value string) {
	key, value, _ = strings.Cut(label, "=")
	return key, value
}
