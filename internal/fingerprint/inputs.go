// Package fingerprint determines the inputs that a host's system is made from, so that a host whose inputs
// are the same as at its last deployment need not be evaluated.
//
// It follows what the rendered modules do with the plan, and what the user's Nix files refer to. It may err
// to one side only: what cannot be followed (a computed import, a snippet that reads the plan) counts as a
// whole, and a host that can change without any input counts as changed always.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// Inputs are everything that a host's system is made from. They go to the host with its receipt and
// hold no secrets.
type Inputs struct {
	// Data are the cells and keys of the plan that the host uses, by names like "host.ip",
	// "server.name", "agent.labels", "network.gateway", "k3s.agent",
	// "cluster.NAME.host.ip" (only where a snippet reads the whole plan).
	Data map[string]string `json:"data"`
	// Names are the host's /etc/hosts: addresses by the name of a host or container.
	Names map[string]string `json:"names"`
	// Servers are the addresses by which the host's containers join, in their order. Like Names they are in a
	// file, and no container restarts when they change.
	Servers string `json:"servers,omitempty"`
	// Files are digests by name: "nixConfigs/ulf.nix", "manifests/a.yaml", "k3s/server.yaml" and
	// the like from the project; "k3splan" for the modules, "rendered" for the host's own file.
	Files map[string]string `json:"files"`
	// Pins are "nixpkgs" and "disko", as far as the host uses them.
	Pins map[string]string `json:"pins"`
	// Loose are reasons why the same inputs can give another system: something without a hash.
	Loose []string `json:"-"`
	// ReadsNames reports whether a snippet may make something else of Names than /etc/hosts.
	ReadsNames bool `json:"-"`
}

// Fingerprint is a digest of all inputs, "sha256:" and hexadecimal digits.
func (in Inputs) Fingerprint() string {
	data, err := json.Marshal(in) // maps are sorted
	if err != nil {
		panic(err) // maps of strings
	}
	return "sha256:" + digest(data)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Of returns the inputs of every host of a project that was rendered into tree.
func Of(p *project.Project, tree hive.Tree) (map[string]Inputs, error) {
	root, err := filepath.EvalSymlinks(p.Dir)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the project's folder: %w", err)
	}
	c := &collector{
		project: p, tree: tree, fsys: p.FS(), root: root,
		files: map[string]*file{}, folders: map[string]string{},
		names: namesOf(p.Plan), servers: serversOf(p.Plan),
	}
	c.modules = c.treeDigest(func(name string) bool { return strings.HasPrefix(name, "modules/") })
	all := make(map[string]Inputs, len(p.Plan.Hosts))
	for _, host := range p.Plan.Hosts {
		in, err := c.host(host)
		if err != nil {
			return nil, fmt.Errorf("finding out what %s is made from: %w", host.Name, err)
		}
		all[host.Name] = in
	}
	return all, nil
}

// collector holds what is the same for all hosts.
type collector struct {
	project *project.Project
	tree    hive.Tree
	fsys    fs.FS
	root    string // the project's folder, without links
	files   map[string]*file
	folders map[string]string
	names   map[string]string
	servers string
	modules string
}

func (c *collector) treeDigest(wanted func(string) bool) string {
	hash := sha256.New()
	for _, name := range c.tree.Paths() {
		if wanted(name) {
			fmt.Fprintf(hash, "%s %d\n", name, len(c.tree[name]))
			hash.Write(c.tree[name])
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// namesOf is what hosts-file.nix makes of the plan.
func namesOf(p *plan.Plan) map[string]string {
	names := map[string]string{}
	for _, host := range p.Hosts {
		if !host.DHCP() {
			names[host.Name] = host.Address.String()
		}
		for _, container := range host.Containers() {
			names[container.Name] = container.Address.String()
		}
	}
	return names
}

func (c *collector) host(h *plan.Host) (Inputs, error) {
	in := Inputs{
		Data: c.data(h), Names: c.names, Pins: map[string]string{},
		Files: map[string]string{
			"k3splan":  digest([]byte(c.modules + ownLines(string(c.tree["hive.nix"]), h.Name))),
			"rendered": digest(c.tree[path.Join("hosts", h.Name+".nix")]),
		},
	}
	if h.Server != nil {
		in.Files["k3s/server.yaml"] = digest(c.tree["k3s/server.json"])
		for _, manifest := range c.project.Manifests {
			in.Files["manifests/"+manifest.Name] = digest(manifest.Data)
		}
	}
	if h.Agent != nil {
		in.Files["k3s/agent.yaml"] = digest(c.tree["k3s/agent.json"])
	}
	if len(h.Containers()) > 0 {
		in.Servers = c.servers
	}
	walk := &walk{collector: c, in: &in, seen: map[string]bool{}, bound: map[string][]string{}, used: map[string]bool{}, climbed: map[string]int{}, explicit: map[string]int{}}
	if err := walk.all(slices.Concat(c.project.Imports(h), c.project.ServerImports(h))); err != nil {
		return Inputs{}, err
	}
	c.pin(&in, "nixpkgs", c.project.Plan.Network.Versions.NixOS)
	if c.project.Partitioned(h) || walk.sources {
		c.pin(&in, "disko", c.project.Plan.Network.Versions.Disko)
	}
	if walk.plan {
		c.wholePlan(&in)
	}
	in.ReadsNames = walk.readsNames()
	slices.Sort(in.Loose)
	in.Loose = slices.Compact(in.Loose)
	return in, nil
}

// ownLines are the hive's lines without those of other hosts.
func ownLines(text, host string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, `"`) && !strings.HasPrefix(name, hive.NixString(host)+" ") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

func (c *collector) pin(in *Inputs, name string, source plan.Source) {
	origin := c.project.Lock.Origin(source)
	switch {
	case origin.Tarball != nil:
		in.Pins[name] = source.String() + " " + origin.Tarball.SHA256
	case origin.Missing != "":
		in.Pins[name] = source.String()
		in.Loose = append(in.Loose, name+" is not pinned")
	default:
		in.Pins[name] = source.String()
		in.Loose = append(in.Loose, fmt.Sprintf("%s comes from %s, which has no hash", name, source))
	}
}

// data follows the modules: what each of them reads of the plan.
func (c *collector) data(h *plan.Host) map[string]string {
	data := map[string]string{}
	flattenHost(data, "", h)
	data["keys.admin"] = keys(c.project.Secrets.Keys(h.Name))
	data["keys.deploy"] = keys(c.project.Secrets.DeployKeys(h.Name))

	network := networkData(c.project.Plan)
	use := func(names ...string) {
		for _, name := range names {
			data["network."+name] = network[name]
		}
	}
	use("nameservers", "domain", "timezone")
	if !h.DHCP() {
		use("netmask", "gateway")
	}
	version := c.project.Plan.Network.Versions.K3s
	if h.Server != nil {
		use("pod_cidr", "service_cidr", "tls_san")
		data["k3s.server"] = version.Minor // nixpkgs has one patch release of it
	}
	if h.Agent != nil {
		data["k3s.agent"] = version.String()
	}
	return data
}

// serversOf is what servers.nix makes of the plan: all servers, the init server first.
func serversOf(p *plan.Plan) string {
	var addresses []string
	for _, server := range p.Servers() {
		if server == p.InitServer() {
			addresses = slices.Insert(addresses, 0, server.Address.String())
		} else {
			addresses = append(addresses, server.Address.String())
		}
	}
	return strings.Join(addresses, " ")
}

// keys describes public keys without holding them.
func keys(lines []string) string {
	return fmt.Sprintf("%d (%.12s)", len(lines), digest([]byte(strings.Join(lines, "\n"))))
}

func networkData(p *plan.Plan) map[string]string {
	flat := map[string]string{}
	flatten(flat, "", toJSON(p.Model().Network))
	return flat
}

// flattenHost puts a host's row under "host.", its containers' under "server." and "agent.".
func flattenHost(into map[string]string, prefix string, h *plan.Host) {
	model := toJSON(h.Model()).(map[string]any)
	containers := model["k3s"].(map[string]any)
	delete(model, "k3s")
	model["admin"] = h.Admin
	checks, err := json.Marshal(model["checks"])
	if err != nil {
		panic(err) // the model is made for JSON
	}
	model["checks"] = string(checks) // commands have blanks, so a list of words would be ambiguous
	flattenRow(into, prefix+"host", model)
	for _, role := range []string{"server", "agent"} {
		if row, ok := containers[role].(map[string]any); ok {
			flattenRow(into, prefix+role, row)
		}
	}
}

// flattenRow quotes the names of columns with dots: the user's column "target.host" is not the key host of
// target.
func flattenRow(into map[string]string, name string, row map[string]any) {
	for column, value := range row {
		if strings.Contains(column, ".") {
			column = strconv.Quote(column)
		}
		flatten(into, name+"."+column, value)
	}
}

// toJSON returns a value as encoding/json decodes it.
func toJSON(value any) any {
	data, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err != nil {
		panic(err) // the model is made for JSON
	}
	return value
}

// flatten adds every scalar below value under a name of its own. Lists are one value; null is "".
func flatten(into map[string]string, name string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			flatten(into, strings.TrimPrefix(name+"."+key, "."), inner)
		}
	case []any:
		texts := make([]string, len(value))
		for i, item := range value {
			texts[i] = fmt.Sprint(item)
		}
		into[name] = strings.Join(texts, " ")
	case nil:
		into[name] = ""
	case float64:
		into[name] = strconv.FormatFloat(value, 'f', -1, 64)
	default:
		into[name] = fmt.Sprint(value)
	}
}

func (c *collector) wholePlan(in *Inputs) {
	for _, host := range c.project.Plan.Hosts {
		flattenHost(in.Data, "cluster."+host.Name+".", host)
	}
	for key, value := range networkData(c.project.Plan) {
		in.Data["network."+key] = value
	}
}

// sorted returns the keys of both maps.
func sorted(a, b map[string]string) []string {
	keys := slices.Collect(maps.Keys(a))
	for key := range b {
		if _, both := a[key]; !both {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}
