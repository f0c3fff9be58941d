package plan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/table"
)

// The files of a plan, relative to the project. VersionsFile may hold the versions instead of
// NetworkFile.
const (
	HostsFile    = files.HostsFile
	K3sFile      = files.K3sFile
	NetworkFile  = files.NetworkFile
	VersionsFile = files.VersionsFile
)

var hostsSchema = table.Schema{
	File:     HostsFile,
	Sheet:    "hosts",
	Required: []string{"name", "interface", "ip", "admin"},
	Optional: []string{"serial", "boot", "system", "tags", "mac"},
	KeepCase: []string{"interface"},
	Reserved: []string{"k3s", "target"},
	Synonyms: map[string]string{
		"host": "name", "hostname": "name", "address": "ip", "ipaddress": "ip", "ip address": "ip",
		"nic": "interface", "iface": "interface", "user": "admin", "owner": "admin",
	},
}

var k3sSchema = table.Schema{
	File:     K3sFile,
	Sheet:    "k3s",
	Required: []string{"host", "name", "type", "ip"},
	Optional: []string{"mac", "labels", "taints"},
	KeepCase: []string{"labels", "taints"},
	Synonyms: map[string]string{
		"hostname": "host", "container": "name", "role": "type", "kind": "type", "address": "ip", "ipaddress": "ip", "ip address": "ip",
	},
}

// Schema returns the schema of HostsFile or K3sFile.
func Schema(file string) table.Schema {
	if file == K3sFile {
		return k3sSchema
	}
	return hostsSchema
}

type hostCells struct {
	Name      string `csv:"name"`
	Interface string `csv:"interface"`
	IP        string `csv:"ip"`
	Admin     string `csv:"admin"`
	Serial    string `csv:"serial"`
	Boot      string `csv:"boot"`
	System    string `csv:"system"`
	Tags      string `csv:"tags"`
	MAC       string `csv:"mac"`
}

type containerCells struct {
	Host   string `csv:"host"`
	Name   string `csv:"name"`
	Type   string `csv:"type"`
	IP     string `csv:"ip"`
	MAC    string `csv:"mac"`
	Labels string `csv:"labels"`
	Taints string `csv:"taints"`
}

// Load reads the tables of the project at the root of fsys and gives the plan with all problems,
// sorted. With an error among them the plan holds what could be understood, good enough to look
// for further problems, and for nothing else.
func Load(fsys fs.FS) (*Plan, diag.Problems) {
	tables, problems := readTables(fsys)
	l := &loader{
		plan: &Plan{byName: map[string]*Host{}, Tables: Tables{
			Hosts: tables.hosts.File, K3s: tables.k3s.File, Network: tables.network.file,
		}},
		hosts:   tables.hosts,
		k3s:     tables.k3s,
		network: tables.network,
		names:   map[string]place{},
		ips:     map[netip.Addr]place{},
		macs:    map[string]place{},
		serials: map[string]place{},
		targets: map[Target]place{},
	}
	l.plan.k3sRows = len(l.k3s.Rows)
	l.plan.Network = l.network.read(l.plan.HasK3s())
	l.readHosts()
	l.readContainers()
	l.checkTags()
	l.checkTargets()
	l.checkSubnet()
	l.plan.Complete = l.hosts.Complete && l.k3s.Complete
	slices.SortFunc(l.plan.Hosts, func(a, b *Host) int { return cmp.Compare(a.Name, b.Name) })

	problems = slices.Concat(problems, l.hosts.Problems(), l.k3s.Problems(), l.network.problems())
	problems.Sort()
	l.plan.suggest(problems)
	return l.plan, problems
}

// tables are what a plan is read from, CSV and YAML files or the sheets of a workbook.
type tables struct {
	hosts, k3s *table.Table
	network    *networkReader
}

func readTables(fsys fs.FS) (tables, diag.Problems) {
	if _, err := fs.Stat(fsys, WorkbookFile); err == nil {
		return readWorkbook(fsys)
	}
	if file := otherWorkbook(fsys); file != "" {
		return noTables(file, "file-missing", "k3splan reads no spreadsheet but "+WorkbookFile, "save it as "+WorkbookFile+" (Office Open XML, Excel 2007-365)")
	}
	return tables{readTable(fsys, hostsSchema), readTable(fsys, k3sSchema), readNetworkFiles(fsys)}, nil
}

// readTable reads a CSV table of the project.
func readTable(fsys fs.FS, s table.Schema) *table.Table {
	data, problem := readFile(fsys, s.File)
	if problem != nil {
		return table.Missing(s, *problem)
	}
	return table.ReadCSV(data, s)
}

// readFile returns a file of the project, or the problem that keeps it from being read.
func readFile(fsys fs.FS, file string) ([]byte, *diag.Problem) {
	data, err := fs.ReadFile(fsys, file)
	if err == nil {
		return data, nil
	}
	problem := diag.FromError(err, file, "file-unreadable")
	if errors.Is(err, fs.ErrNotExist) {
		problem.Code, problem.Message, problem.Hint = "file-missing", "the file is missing", "k3splan setup writes one to start from"
	} else {
		problem.Message = "the file cannot be read: " + problem.Message
	}
	return nil, &problem
}

// place is where a name or address was first used.
type place struct {
	owner string // `host "olaf"`
	where string // "plans/hosts.csv:3"
}

func (p place) String() string { return fmt.Sprintf("%s (%s)", p.owner, p.where) }

// loader reads the rows in the order of the files, hosts before containers, so that of two
// duplicates the later one is the problem.
type loader struct {
	plan       *Plan
	hosts, k3s *table.Table
	network    *networkReader

	names        map[string]place
	ips          map[netip.Addr]place
	macs         map[string]place
	serials      map[string]place
	targets      map[Target]place
	unknownHosts int
	// addressed are the rows with a static address, for the checks that need the subnet
	addressed []addressed
}

// maxHints is for how many unknown hosts or wrong addresses a better one is looked for, which takes
// its time.
const maxHints = 50

type addressed struct {
	row     row
	address netip.Addr
}

// row is a row of a table whose cells are checked.
type row struct{ table.Row }

// unique notes where value is used, or reports the second use.
func unique[V comparable](seen map[V]place, value V, r row, column, code, message, hint string, owner string) bool {
	if first, taken := seen[value]; taken {
		r.Fail(column, r.Raw(column), code, fmt.Sprintf(message, first), hint)
		return false
	}
	seen[value] = place{owner, r.Table.Place(r.Line, column)}
	return true
}

// required reports an empty cell; false means that there is nothing to check further.
func (r row) required(column, value string) bool {
	if value == "" && r.Table.Has(column) {
		r.Fail(column, "", "cell-empty", "the cell is empty", "")
	}
	return value != ""
}

// check reports a finding about a cell; ok means that there was none.
func (r row) check(column string, wrong *finding) (ok bool) {
	if wrong != nil {
		r.Fail(column, r.Raw(column), wrong.code, wrong.message, wrong.hint)
	}
	return wrong == nil
}

// decode returns the rows of a table as values.
func decode[T any](t *table.Table) []T {
	rows, err := table.Decode[T](t)
	if err != nil {
		// every cell is a string and the header was checked, so there is nothing left to fail
		t.Report(diag.Error, 0, "", "", "csv-syntax", err.Error(), "")
		t.Complete = false
		return nil
	}
	return rows
}

func (l *loader) readHosts() {
	for i, cells := range decode[hostCells](l.hosts) {
		l.readHost(row{l.hosts.Rows[i]}, cells)
	}
	if len(l.hosts.Rows) == 0 && l.hosts.Complete {
		l.hosts.Report(diag.Error, 0, "", "", "table-empty", "there is no host in the table", "add a row for each machine")
		l.hosts.Complete = false // whatever names a host is not a mistake of its own
	}
}

func (l *loader) readHost(r row, cells hostCells) {
	host := &Host{
		Name: cells.Name, Interface: cells.Interface, Admin: cells.Admin, Serial: cells.Serial,
		Own: r.Own(), Line: r.Line, Place: r.Table.Place(r.Line, "name"), row: r,
	}
	switch {
	case !r.required("name", host.Name):
		l.hosts.Complete = false
	case !r.check("name", checkName(host.Name)):
		l.hosts.Complete = l.hosts.Complete && hostName.MatchString(host.Name)
	}
	if r.required("interface", host.Interface) {
		r.check("interface", checkInterface(host.Interface))
	}
	if r.required("admin", host.Admin) {
		r.check("admin", checkAdmin(host.Admin))
	}
	l.readAddress(r, host, cells.IP)
	if strings.HasPrefix(host.Interface, "wl") && !host.saysDHCP {
		r.Warn("interface", host.Interface, "interface-wireless", "most access points refuse the second address that a macvlan needs",
			"use a wired interface")
	}
	l.readBoot(r, host, cells)
	l.readTags(r, host, cells.Tags)
	if cells.MAC != "" {
		var wrong *finding
		host.MAC, wrong = parseMAC(cells.MAC)
		r.check("mac", wrong)
	}

	owner := fmt.Sprintf("host %q", host.Name)
	twin := l.plan.byName[host.Name]
	if host.Name != "" && !unique(l.names, host.Name, r, "name", "name-duplicate", "the name is taken by %s", "", owner) && twin != nil {
		// what the second row of a host repeats is not a second mistake
		if twin.Address == host.Address {
			return
		}
	}
	if host.Address.IsValid() {
		unique(l.ips, host.Address, r, "ip", "address-duplicate", "the address is taken by %s", "", owner)
		l.addressed = append(l.addressed, addressed{r, host.Address})
	}
	if host.MAC != "" {
		unique(l.macs, host.MAC, r, "mac", "mac-duplicate", "the MAC address is that of %s", "", owner)
	}
	if host.Serial != "" {
		unique(l.serials, host.Serial, r, "serial", "serial-duplicate", "the disk is that of %s", "every disk has a serial of its own: lsblk -o NAME,SERIAL", owner)
	}
	if host.Name != "" && twin == nil {
		l.plan.Hosts = append(l.plan.Hosts, host)
		l.plan.byName[host.Name] = host
	}
}

var dhcpWords = []string{"", "dhcp", "auto", "automatic", "dynamic"}

// readAddress reads ADDRESS, ADDRESS@TARGET or dhcp@TARGET.
func (l *loader) readAddress(r row, host *Host, cell string) {
	if !r.Table.Has("ip") {
		return
	}
	address, targetText, hasTarget := strings.Cut(cell, "@")
	address, targetText = strings.TrimSpace(address), strings.TrimSpace(targetText)
	dhcp := slices.Contains(dhcpWords, address)
	host.saysDHCP = dhcp
	if !dhcp {
		var wrong *finding
		if host.Address, wrong = parseAddress(address); wrong != nil {
			if nearest := diag.Nearest(address, dhcpWords); nearest != "" {
				wrong.hint = diag.DidYouMean(address, dhcpWords)
			} else if target, _ := parseTarget(address); !hasTarget && (target.Local || target.Port != 0) {
				wrong.hint = fmt.Sprintf("where to deploy to stands behind an @: ADDRESS@%s", address)
			}
			r.check("ip", wrong)
		}
	}
	switch {
	case hasTarget && targetText != "":
		var wrong *finding
		host.Target, wrong = parseTarget(targetText)
		r.check("ip", wrong)
	case cell == "":
		r.Fail("ip", "", "target-missing", "there is no address", "an address, or dhcp@TARGET with an address or name that always leads to the host")
	case dhcp:
		r.Fail("ip", cell, "target-missing", "with DHCP k3splan cannot know where to reach the host",
			"an address, or dhcp@TARGET with an address or name that always leads to the host")
	case hasTarget:
		r.Fail("ip", cell, "target-missing", "nothing stands behind the @", "ADDRESS@TARGET, or the address alone")
	case host.Address.IsValid():
		host.Target = Target{Host: host.Address.String()}
	}
}

var systems = []string{"x86_64-linux", "aarch64-linux"}

func (l *loader) readBoot(r row, host *Host, cells hostCells) {
	switch cells.Boot {
	case "", "efi":
		host.Boot = EFI
	case "legacy":
		host.Boot = Legacy
	default:
		hint := map[string]string{"uefi": `write "efi"`, "bios": `write "legacy"`, "mbr": `write "legacy"`}[cells.Boot]
		if hint == "" {
			hint = cmp.Or(diag.DidYouMean(cells.Boot, []string{"efi", "legacy"}), "efi or legacy; an empty cell means efi")
		}
		r.Fail("boot", r.Raw("boot"), "boot-unknown", "k3splan knows no such way to boot", hint)
	}
	host.System = cmp.Or(cells.System, systems[0])
	if !slices.Contains(systems, host.System) {
		hint := map[string]string{
			"x86_64": "x86_64-linux", "amd64": "x86_64-linux", "aarch64": "aarch64-linux", "arm64": "aarch64-linux",
		}[host.System]
		if hint != "" {
			hint = fmt.Sprintf("write %q", hint)
		}
		r.Fail("system", r.Raw("system"), "system-unknown", "k3splan supports no such system",
			cmp.Or(hint, diag.DidYouMean(host.System, systems), strings.Join(systems, " or ")))
	}
}

func (l *loader) readTags(r row, host *Host, cell string) {
	for _, tag := range strings.Fields(cell) {
		if wrong := checkTag(tag); wrong != nil {
			r.Fail("tags", tag, wrong.code, wrong.message, wrong.hint)
			continue
		}
		host.Tags = append(host.Tags, tag)
	}
	slices.Sort(host.Tags)
	host.Tags = slices.Compact(host.Tags)
}

var roles = map[string]Role{
	"init": Init, "init-server": Init, "init_server": Init, "server": Server, "agent": Agent,
}

// roleSynonyms are what others call the roles.
var roleSynonyms = map[string]Role{
	"master": Server, "control-plane": Server, "controlplane": Server, "controller": Server, "etcd": Server,
	"worker": Agent, "node": Agent, "minion": Agent,
}

func (l *loader) readContainers() {
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
			l.k3s.Complete = false // a server that may have files of its own
		}
		if container.Role != Init {
			continue
		}
		if init != nil {
			r.Fail("type", r.Raw("type"), "init-duplicate",
				fmt.Sprintf("there is an init server already (%s); a second one would start a cluster of its own", l.k3s.Place(init.Line, "type")),
				`let all servers but one be of type "server"`)
			continue
		}
		init = &r
	}
	if !decidable || len(l.k3s.Rows) == 0 {
		return
	}
	switch {
	case init == nil:
		l.k3s.Report(diag.Error, 0, "type", "", "init-missing", "no server starts the cluster",
			`let one of the servers be of type "init"`)
	case servers%2 == 0 && l.k3s.Errors() == 0:
		l.k3s.Report(diag.Warning, 0, "type", "", "servers-even",
			fmt.Sprintf("%d servers survive the loss of no more of them than %d would", servers, servers-1),
			"etcd needs a majority: use an odd number of servers")
	}
}

func (l *loader) readContainer(r row, cells containerCells) *Container {
	c := &Container{Name: cells.Name, Own: r.Own(), Line: r.Line, Place: r.Table.Place(r.Line, "name"), row: r}
	if r.required("name", c.Name) {
		r.check("name", checkName(c.Name))
	}
	if r.required("type", cells.Type) {
		var known bool
		if c.Role, known = roles[cells.Type]; !known {
			words := []string{"init", "server", "agent"}
			hint := cmp.Or(diag.DidYouMean(cells.Type, words), "init, server or agent")
			if meant := roleSynonyms[cells.Type]; meant != "" {
				hint = fmt.Sprintf("did you mean %q?", meant)
			}
			r.Fail("type", r.Raw("type"), "type-unknown", "there is no such type", hint)
		}
	}
	if r.required("ip", cells.IP) {
		var wrong *finding
		c.Address, wrong = parseAddress(cells.IP)
		r.check("ip", wrong)
	}
	if cells.MAC != "" {
		var wrong *finding
		c.MAC, wrong = parseMAC(cells.MAC)
		r.check("mac", wrong)
	}
	l.readLabels(r, c, cells)

	repeats := l.attach(r, c, cells.Host)
	owner := fmt.Sprintf("container %q", c.Name)
	if c.Name != "" {
		unique(l.names, c.Name, r, "name", "name-duplicate", "the name is taken by %s", "names are unique among hosts and containers", owner)
	}
	if repeats {
		return c
	}
	if c.Address.IsValid() {
		unique(l.ips, c.Address, r, "ip", "address-duplicate", "the address is taken by %s", "", owner)
		l.addressed = append(l.addressed, addressed{r, c.Address})
	}
	if c.MAC != "" {
		unique(l.macs, c.MAC, r, "mac", "mac-duplicate", "the MAC address is that of %s", "", owner)
	}
	return c
}

// attach puts the container on its host; repeats tells that the row says again what an earlier one
// said, which is one mistake and not several.
func (l *loader) attach(r row, c *Container, hostName string) (repeats bool) {
	if !r.required("host", hostName) {
		return false
	}
	host := l.plan.byName[hostName]
	if host == nil {
		if l.hosts.Complete {
			hint := ""
			if l.unknownHosts++; l.unknownHosts <= maxHints {
				hint = diag.DidYouMean(hostName, l.plan.HostNames())
			}
			r.Fail("host", r.Raw("host"), "host-unknown", "there is no such host in "+l.hosts.File,
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
		return false
	}
	slot, code, kind := &host.Server, "server-duplicate", "server"
	if c.Role == Agent {
		slot, code, kind = &host.Agent, "agent-duplicate", "agent"
	}
	if first := *slot; first != nil {
		if first.Name == c.Name {
			return first.Address == c.Address // told as name-duplicate
		}
		r.Fail("host", r.Raw("host"), code, fmt.Sprintf("the host has its %s already: %q (%s)", kind, first.Name, first.Place),
			fmt.Sprintf("at most one %s a host", kind))
		return false
	}
	*slot = c
	return false
}

func splitLabel(label string) (key, value string) {
	key, value, _ = strings.Cut(label, "=")
	return key, value
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
				r.Fail(column, item, strings.TrimSuffix(column, "s")+"-invalid", "the key stands here twice", "")
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
				r.Warn(column, r.Raw(column), "label-ignored", "a server runs no workloads and is no node of the cluster: this has no effect", "put it at the agent")
			}
		}
	}
}

// checkTags: a tag may not be the name of a host or container, or `--on` would be ambiguous.
func (l *loader) checkTags() {
	rows := map[int]row{}
	for _, r := range l.hosts.Rows {
		rows[r.Line] = row{r}
	}
	for _, host := range l.plan.Hosts {
		for _, tag := range host.Tags {
			if owner, taken := l.names[tag]; taken {
				rows[host.Line].Fail("tags", tag, "name-duplicate", fmt.Sprintf("the tag is the name of %s", owner), "choose another tag")
			}
		}
	}
}

// checkTargets: two hosts deployed to one target would overwrite each other.
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
	rows := map[int]row{}
	for _, r := range l.hosts.Rows {
		rows[r.Line] = row{r}
	}
	for _, host := range l.plan.Hosts {
		if host.Target == (Target{}) {
			continue
		}
		r := rows[host.Line]
		cell := r.Raw("ip")
		address, _ := netip.ParseAddr(host.Target.Host)
		if c := containerAt[address]; c != nil && strings.Contains(cell, "@") {
			r.Fail("ip", cell, "target-invalid", fmt.Sprintf("the target is the address of container %q", c.Name), "name the address of the machine itself")
			continue
		}
		if other := hostAt[address]; other != nil && other != host && host.Target.Port == 0 && strings.Contains(cell, "@") {
			r.Fail("ip", cell, "target-duplicate", fmt.Sprintf("the target is the address of host %q (%s)", other.Name, other.Place),
				"it would be overwritten with this host's system")
			continue
		}
		if other := l.hostNamed(host.Target.Host); other != nil && other != host {
			r.Fail("ip", cell, "target-duplicate", fmt.Sprintf("the target is the name of host %q (%s)", other.Name, other.Place),
				"it would be overwritten with this host's system")
			continue
		}
		if host.Target.Host == host.Address.String() && host.Target.Port == 0 {
			continue // the same address twice is told as address-duplicate
		}
		target := host.Target
		if target.Port == 22 {
			target.Port = 0 // the same unless ssh's configuration says otherwise
		}
		unique(l.targets, target, r, "ip", "target-duplicate", "the target is that of %s", "each host needs a target of its own", fmt.Sprintf("host %q", host.Name))
	}
}

// hostNamed finds a host by its name, with or without the plan's domain.
func (l *loader) hostNamed(name string) *Host {
	if domain := l.plan.Network.Domain; domain != "" {
		name = strings.TrimSuffix(name, "."+domain)
	}
	return l.plan.byName[name]
}

// checkSubnet looks at all static addresses, if gateway and netmask are right.
func (l *loader) checkSubnet() {
	subnet, gateway := l.plan.Network.Subnet, l.plan.Network.Gateway
	if !subnet.IsValid() || len(l.addressed) == 0 {
		return
	}
	if !slices.ContainsFunc(l.addressed, func(a addressed) bool { return subnet.Contains(a.address) }) {
		l.network.report(l.network.line("gateway"), "gateway", gateway.String(), finding{"gateway-invalid",
			fmt.Sprintf("no address of the plan lies in the subnet of the gateway, %s", subnet),
			fmt.Sprintf("correct gateway or netmask; the first address of the plan is %s", l.addressed[0].address)})
		return
	}
	for _, a := range l.addressed {
		column := "ip"
		switch {
		case !subnet.Contains(a.address):
			a.row.Fail(column, a.row.Raw(column), "address-outside-subnet", fmt.Sprintf("not in the subnet %s", subnet),
				"the subnet is gateway and netmask in "+l.network.file)
		case a.address == gateway:
			a.row.Fail(column, a.row.Raw(column), "address-reserved", "the address of the gateway", "")
		case a.address == subnet.Addr():
			a.row.Fail(column, a.row.Raw(column), "address-reserved", fmt.Sprintf("the address of the network %s itself", subnet), "")
		case a.address == lastAddress(subnet):
			a.row.Fail(column, a.row.Raw(column), "address-reserved", fmt.Sprintf("the broadcast address of %s", subnet), "")
		}
	}
}
