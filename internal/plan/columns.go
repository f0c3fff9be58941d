package plan

import "k3splan/internal/table"

var hostsSchema = table.Schema{
	File:     HostsFile,
	Sheet:    "hosts",
	Required: []string{"name", "interface", "ip", "admin"},
	Optional: []string{"serial", "boot", "system", "tags", "mac", "state_version",
		"role", "groups", "reboot_order", "depends_on", "strategy", "reboot_delay", "criticality"},
	KeepCase: []string{"interface", "role"},
	Words:    []string{"tags", "groups", "depends_on"},
	Serials:  "serial",
	Reserved: []string{"k3s", "target", "checks"},
	Synonyms: map[string][]string{
		"name": {"host", "hostname", "machine", "machinename", "node", "nodename", "server", "servername", "computer", "computername",
			"device", "devicename", "fqdn", "dnsname", "rechner", "rechnername", "maschine", "maschinenname", "geraet", "geraetename", "knoten",
			"knotenname", "bezeichnung"},
		"interface": {"nic", "iface", "ifname", "ifc", "interfacename", "networkinterface", "netinterface", "networkadapter", "adapter",
			"networkcard", "netdev", "netif", "ethernet", "schnittstelle", "netzwerkschnittstelle", "netzschnittstelle", "netzwerkkarte", "netzkarte",
			"netzwerkadapter", "netzwerkinterface"},
		"ip": addressSynonyms,
		"admin": {"administrator", "user", "username", "owner", "login", "loginname", "account", "adminuser", "adminname", "operator",
			"responsible", "contact", "sshuser", "benutzer", "benutzername", "nutzer", "nutzername", "verantwortlich", "verantwortlicher",
			"verantwortliche", "zustaendig", "ansprechpartner", "betreuer", "besitzer", "eigentuemer"},
		"serial": {"serialnumber", "serialno", "serialnr", "sn", "disk", "diskserial", "diskserialnumber", "diskid", "diskname", "driveserial",
			"ssd", "drive", "serialnum", "sernr", "seriennummer", "seriennr", "platte", "festplatte", "festplattenseriennummer", "plattenseriennummer",
			"datentraeger"},
		"boot":   {"bootmode", "bootmethod", "boottype", "bootloader", "firmware", "biosmode", "uefi", "bootmodus", "bootart", "startart"},
		"system": {"arch", "architecture", "platform", "cpuarch", "cpuarchitecture", "nixsystem", "architektur", "plattform"},
		"tags": {"tag", "label", "labels", "schlagwort", "schlagworte", "schlagwoerter", "etikett", "etiketten",
			"markierung", "markierungen"},
		"mac":           macSynonyms,
		"state_version": {"stateversion", "state", "systemstateversion", "installedrelease"},
		"groups":        {"group", "hostgroup", "hostgroups", "gruppe", "gruppen"},
		"reboot_order":  {"rebootorder", "bootorder", "restartorder", "rebootpriority"},
		"depends_on":    {"dependson", "dependencies", "depends", "dependency", "requires", "needs", "abhaengigvon", "abhaengigkeiten"},
		"strategy":      {"deploystrategy", "deploymentstrategy", "strategie"},
		"reboot_delay":  {"rebootdelay", "delay", "restartdelay"},
		"criticality":   {"criticalitylevel", "criticallevel", "importance", "kritikalitaet"},
	},
}

// addressSynonyms and macSynonyms are the same for hosts and containers.
var (
	addressSynonyms = []string{"address", "addr", "ipaddress", "ipaddr", "ipadress", "ipadresse", "ipv4", "ip4", "ipv4address", "ipv4addr",
		"staticip", "lanip", "hostip", "networkaddress", "adresse", "ipv4adresse", "netzwerkadresse", "netzadresse"}
	macSynonyms = []string{"macaddress", "macaddr", "macadress", "macadresse", "hwaddr", "hwaddress", "hardwareaddress", "physicaladdress",
		"ethernetaddress", "lladdr", "ethaddr", "macid", "hardwareadresse", "physischeadresse"}
)

var k3sSchema = table.Schema{
	File:     K3sFile,
	Sheet:    "k3s",
	Required: []string{"host", "name", "type", "ip"},
	Optional: []string{"mac", "labels", "taints"},
	KeepCase: []string{"labels", "taints"},
	Words:    []string{"labels", "taints"},
	Synonyms: map[string][]string{
		"host":   {"hostname", "machine", "machinename", "node", "physicalhost", "computer", "on", "server", "servername", "rechner", "rechnername", "maschine", "geraet", "knoten"},
		"name":   {"container", "containername", "k3sname", "nodename", "instance", "instancename", "instanz", "bezeichnung"},
		"type":   {"role", "kind", "containertype", "k3srole", "noderole", "typ", "art", "rolle", "funktion"},
		"ip":     addressSynonyms,
		"mac":    macSynonyms,
		"labels": {"label", "nodelabels", "nodelabel", "tags", "etikett", "etiketten", "markierungen"},
		"taints": {"taint", "nodetaints", "nodetaint"},
	},
}

var checksSchema = table.Schema{
	File:     ChecksFile,
	Sheet:    "checks",
	Required: []string{"host", "name", "type", "target"},
	Optional: []string{"timeout", "from"},
	KeepCase: []string{"name", "target"},
	Words:    []string{"host", "target"},
	Synonyms: map[string][]string{
		"host":    {"hosts", "hostname", "machine", "machines", "node", "rechner", "maschine"},
		"name":    {"check", "checkname", "healthcheck", "title", "bezeichnung"},
		"type":    {"kind", "checktype", "typ", "art"},
		"target":  {"url", "port", "command", "unit", "address", "endpoint", "ziel"},
		"timeout": {"timeoutseconds", "timeouts", "limit", "zeitlimit"},
		"from":    {"source", "checkedfrom", "where", "von"},
	},
}

// Schema returns the schema of HostsFile, K3sFile or ChecksFile.
func Schema(file string) table.Schema {
	switch file {
	case K3sFile:
		return k3sSchema
	case ChecksFile:
		return checksSchema
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
	State     string `csv:"state_version"`

	Role        string `csv:"role"`
	Groups      string `csv:"groups"`
	RebootOrder string `csv:"reboot_order"`
	DependsOn   string `csv:"depends_on"`
	Strategy    string `csv:"strategy"`
	RebootDelay string `csv:"reboot_delay"`
	Criticality string `csv:"criticality"`
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

type checkCells struct {
	Host    string `csv:"host"`
	Name    string `csv:"name"`
	Type    string `csv:"type"`
	Target  string `csv:"target"`
	Timeout string `csv:"timeout"`
	From    string `csv:"from"`
}
