package plan

import "k3splan/internal/table"

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
