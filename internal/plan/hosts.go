package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
)

func (l *loader) readHosts() {
	l.plan.OwnColumns = l.hosts.Own()
	for i, cells := range decode[hostCells](l.hosts) {
		l.readHost(row{l.hosts.Rows[i]}, cells)
	}
	if len(l.hosts.Rows) == 0 && l.hosts.Complete {
		l.hosts.Report(diag.Error, 0, "", "", "table-empty", "the table has no host", "add a row for each machine")
		l.hosts.Complete = false // so that a row that names a host is not reported too
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
	case !l.checkName(r, host.Name):
		l.hosts.Complete = l.hosts.Complete && isHostName(host.Name)
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
	host.State = cmp.Or(cells.State, l.plan.Network.Versions.State)
	if cells.State != "" {
		r.check("state_version", checkState(cells.State, l.plan.Network.Versions.NixOS.Release()))
	}
	l.readMachine(r, host, cells)
	if cells.MAC != "" {
		var wrong *finding
		host.MAC, wrong = parseMAC(cells.MAC)
		r.check("mac", wrong)
	}

	by := owner{"host", host.Name}
	twin := l.plan.byName[host.Name]
	if host.Name != "" && !unique(l.names, host.Name, r, "name", "name-duplicate", "the name is taken by %s", "", by) && twin != nil {
		// what the second row of a host repeats is not a second problem
		if twin.Address == host.Address {
			return
		}
	}
	if host.Address.IsValid() {
		unique(l.ips, host.Address, r, "ip", "address-duplicate", "the address is taken by %s", "", by)
		l.addressed = append(l.addressed, addressed{r, host.Address})
	}
	if host.MAC != "" {
		unique(l.macs, host.MAC, r, "mac", "mac-duplicate", "the MAC address is also that of %s", "", by)
	}
	if host.Serial != "" {
		unique(l.serials, host.Serial, r, "serial", "serial-duplicate", "the disk is also that of %s", "each disk has its own serial: lsblk -o NAME,SERIAL", by)
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
			if nearest := diag.Nearest(address, dhcpWords); nearest != "" && !slices.Contains(ipv6Words, address) {
				wrong.hint = diag.DidYouMean(address, dhcpWords)
			} else if target, _ := parseTarget(address); !hasTarget && (target.Local || target.Port != 0) {
				wrong.hint = fmt.Sprintf("write the address to deploy to after an @: ADDRESS@%s", address)
			}
			r.checkAddress("ip", wrong)
		}
	}
	switch {
	case hasTarget && targetText != "":
		var wrong *finding
		host.Target, wrong = parseTarget(targetText)
		r.checkAddress("ip", wrong)
	case cell == "":
		r.Fail("ip", "", "target-missing", "the address is missing", "an address, or dhcp@TARGET with an address or name that always leads to the host")
	case dhcp:
		r.Fail("ip", cell, "target-missing", "with DHCP, k3splan cannot know where to reach the host",
			"an address, or dhcp@TARGET with an address or name that always leads to the host")
	case hasTarget:
		r.Fail("ip", cell, "target-missing", "nothing follows the @", "ADDRESS@TARGET, or the address alone")
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
		r.Fail("boot", r.Raw("boot"), "boot-unknown", "unknown boot mode", hint)
	}
	host.System = cmp.Or(cells.System, systems[0])
	if !slices.Contains(systems, host.System) {
		hint := map[string]string{
			"x86_64": "x86_64-linux", "amd64": "x86_64-linux", "aarch64": "aarch64-linux", "arm64": "aarch64-linux",
		}[host.System]
		if hint != "" {
			hint = fmt.Sprintf("write %q", hint)
		}
		r.Fail("system", r.Raw("system"), "system-unknown", "unsupported system",
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
