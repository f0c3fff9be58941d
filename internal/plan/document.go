package plan

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
	"k3splan/internal/table"
	"k3splan/internal/yamlfile"
)

// document holds the values of network.yaml, versions.yaml or the sheet network by their keys.
type document struct {
	file  string
	found diag.Collector
	// keys are the scalars and lists by their path ("versions.k3s")
	keys map[string]*yaml.Node
	// slips are known keys with a problem that was reported (misspelt, given twice, of the wrong shape),
	// so that they are not reported as missing too
	slips map[string]bool
	// empty are the lines of keys without a value
	empty map[string]int
	// unreadable: nothing can be said about what is missing
	unreadable bool
	// cells are the rows of a sheet, by line, and the place of their values; nil in a YAML file
	cells  map[int][]string
	values int
}

func newDocument(file string) *document {
	return &document{file: file, keys: map[string]*yaml.Node{}, slips: map[string]bool{}, empty: map[string]int{}}
}

// readDocument reads a YAML file with the known keys, a dot for each level; others are problems.
func readDocument(file string, data []byte, known []string) *document {
	d := newDocument(file)
	mapping, problem := yamlfile.Read(file, data, known)
	switch {
	case problem != nil:
		d.unreadable = true
		d.found.Add(*problem)
	case mapping != nil:
		d.walk("", mapping, known)
	}
	return d
}

func (d *document) walk(path string, node *yaml.Node, known []string) {
	if node.Kind != yaml.MappingNode {
		d.unreadable = true
		wrong := finding{yamlfile.Code, "keys with values are needed here", "key: value"}
		first, _, _ := strings.Cut(node.Value, " ")
		if hint := yamlfile.MissingBlank(first, known); hint != "" {
			wrong.message, wrong.hint = yamlfile.NoBlank, hint
		}
		d.report(node.Line, strings.TrimSuffix(path, "."), node.Value, wrong)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], yamlfile.Value(node.Content[i+1])
		key := path + name.Value
		isParent := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
		switch {
		case seen[key]:
			d.report(name.Line, key, "", finding{"key-duplicate", "the key is given twice", "delete one of the two"})
			d.forget(key, known)
		case isParent:
			if !yamlfile.IsNull(value) {
				d.walk(key+".", value, known)
			}
		case slices.Contains(known, key):
			if value.Kind == yaml.MappingNode {
				d.report(value.Line, key, "", finding{"value-invalid", "a value is needed here, not keys", ""})
				d.slips[key] = true
			} else if yamlfile.IsNull(value) {
				d.empty[key] = name.Line
			} else {
				d.keys[key] = value
			}
		default:
			d.unknownKey(name, key, known)
		}
		seen[key] = true
	}
}

// forget drops a key, and all below it, whose value is uncertain.
func (d *document) forget(key string, known []string) {
	for _, k := range known {
		if k == key || strings.HasPrefix(k, key+".") {
			delete(d.keys, k)
			d.slips[k] = true
		}
	}
}

// keySynonyms are what people call keys of network.yaml.
var keySynonyms = map[string]string{
	"dns": "nameservers", "dns_server": "nameservers", "dns_servers": "nameservers", "resolvers": "nameservers",
	"mask": "netmask", "subnet_mask": "netmask", "subnet": "netmask", "prefix": "netmask", "prefix_length": "netmask", "cidr": "netmask",
	"router": "gateway", "default_gateway": "gateway", "search": "domain", "search_domain": "domain", "domain_name": "domain",
	"tz": "timezone", "time_zone": "timezone", "zeitzone": "timezone", "domäne": "domain", "netzmaske": "netmask", "subnetz": "netmask", "resolver": "nameservers", "cluster_cidr": "pod_cidr", "pods": "pod_cidr", "services": "service_cidr",
	"sans": "tls_san", "san": "tls_san", "range": "address_range", "pool": "address_range",
	"nixpkgs": "versions.nixos", "nixos_version": "versions.nixos", "kubernetes": "versions.k3s", "k3s_version": "versions.k3s",
	"versions.nixpkgs": "versions.nixos", "versions.kubernetes": "versions.k3s",
}

func (d *document) unknownKey(name *yaml.Node, key string, known []string) {
	hint := "the keys are: " + strings.Join(known, ", ")
	normal := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	nearest := diag.Nearest(normal, known)
	if slices.Contains(known, normal) {
		nearest = normal
	}
	for _, k := range known {
		// a key of versions that is one level too high
		if nearest == "" && strings.HasSuffix(k, "."+normal) {
			nearest = k
		}
	}
	if below := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return !strings.HasPrefix(k, key+".") }); len(below) > 0 {
		hint = "write " + strings.Join(below, ", ") + ", each in a row of its own" // a sheet has no levels
	}
	if blank := yamlfile.MissingBlank(name.Value, known); blank != "" {
		before, _, _ := strings.Cut(key, ":")
		d.slips[before] = true
		d.report(name.Line, before, "", finding{yamlfile.Code, yamlfile.NoBlank, blank})
		return
	}
	if nearest == "" {
		nearest = keySynonyms[normal]
	}
	if d.cells == nil && nearest == "" && (normal == "versions" || diag.Nearest(normal, []string{"versions"}) != "") {
		nearest = "versions"
		d.forget(nearest, known)
	}
	if nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", nearest)
		d.slips[nearest] = true
	}
	d.report(name.Line, key, "", finding{"key-unknown", "unknown key", hint})
}

// fileAt is the file of a problem in a line: in a sheet it names the cell with the value, or the
// key's if there is no value.
func (d *document) fileAt(line int, value string) string {
	if d.cells == nil || line == 0 {
		return d.file
	}
	column := max(d.values-1, 0)
	if cells := d.cells[line]; value != "" && len(cells) > d.values {
		found := slices.Index(cells[d.values:], value)
		if found < 0 { // one item of several in a cell
			found = slices.IndexFunc(cells[d.values:], func(cell string) bool { return strings.Contains(cell, value) })
		}
		if found >= 0 {
			column = d.values + found
		}
	}
	return d.file + "!" + table.CellName(column, line)
}

func (d *document) report(line int, key, value string, f finding) {
	d.found.Add(diag.Problem{
		File: d.fileAt(line, value), Line: line, Column: key, Value: value, Severity: diag.Error,
		Code: f.code, Message: f.message, Hint: f.hint,
	})
}

// warn reports a warning about the value of a key.
func (d *document) warn(key string, f finding) {
	node := d.keys[key]
	d.found.Add(diag.Problem{
		File: d.fileAt(node.Line, node.Value), Line: node.Line, Column: key, Value: node.Value, Severity: diag.Warning,
		Code: f.code, Message: f.message, Hint: f.hint,
	})
}

// fail reports an error about the value of a key.
func (d *document) fail(key string, f *finding) {
	node := d.keys[key]
	d.report(node.Line, key, node.Value, *f)
}

// line returns the line of a key's value, 0 if the file does not have the key.
func (d *document) line(key string) int {
	if node := d.keys[key]; node != nil {
		return node.Line
	}
	return 0
}

// text returns a single value, trimmed; ok is false without one.
func (d *document) text(key string) (value string, ok bool) {
	node := d.keys[key]
	if node == nil {
		return "", false
	}
	if node.Kind != yaml.ScalarNode {
		d.report(node.Line, key, "", finding{"value-invalid", "a single value is needed here, not a list", ""})
		d.slips[key] = true
		return "", false
	}
	return strings.TrimSpace(node.Value), true
}

// list returns the items of a list; a single value is a list of one.
func (d *document) list(key string) []*yaml.Node {
	node := d.keys[key]
	switch {
	case node == nil:
		return nil
	case node.Kind == yaml.ScalarNode:
		return []*yaml.Node{node}
	}
	var items []*yaml.Node
	for _, item := range node.Content {
		if item = yamlfile.Value(item); item.Kind != yaml.ScalarNode {
			d.report(item.Line, key, "", finding{"value-invalid", "the items of this list must be single values", ""})
			continue
		}
		items = append(items, item)
	}
	return items
}
