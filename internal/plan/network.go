package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked against IANA's list, also where the machine has none
	"unicode/utf8"

	"k3splan/internal/diag"
	"k3splan/internal/table"

	"gopkg.in/yaml.v3"
)

// Network is what all hosts share: network.yaml.
type Network struct {
	// Subnet is the LAN that hosts and containers are in; Gateway lies in it.
	Subnet  netip.Prefix
	Gateway netip.Addr
	// Nameservers are never empty.
	Nameservers []netip.Addr
	// Domain and Timezone (an IANA name) are "" if the plan does not say.
	Domain, Timezone string
	// PodCIDR and ServiceCIDR are k3s's own networks.
	PodCIDR, ServiceCIDR netip.Prefix
	// TLSSAN are further names and addresses of the Kubernetes API, sorted.
	TLSSAN   []string
	Versions Versions
	// AddressRange are the addresses that k3splan may give to what is added; by default all of the
	// subnet.
	AddressRange AddressRange
	// Secrets is where the secrets are kept. It is no part of the Model: no machine needs to know.
	Secrets SecretStore

	// places are where the keys stand (see Where)
	places map[string]diag.Problem
}

// Versions are the releases that a plan asks for.
type Versions struct {
	NixOS, Disko Source
	// K3s is the zero K3sVersion if the plan has no k3s.
	K3s K3sVersion
}

// K3sVersion is a release of k3s, or a minor version whose patch release nixpkgs chooses.
type K3sVersion struct {
	// Minor is "1.31".
	Minor string
	// Patch is "1.31.14+k3s1", or "".
	Patch string
}

func (v K3sVersion) String() string {
	if v.Patch != "" {
		return v.Patch
	}
	return v.Minor
}

// Defaults of network.yaml. Those of the pod and service networks are k3s's own.
var (
	defaultNameservers = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8})}
	defaultPodCIDR     = netip.MustParsePrefix("10.42.0.0/16")
	defaultServiceCIDR = netip.MustParsePrefix("10.43.0.0/16")
)

const defaultDisko = "latest"

var k3sVersionForm = regexp.MustCompile(`^v?([0-9]+\.[0-9]+)(?:(\.[0-9]+)[+-](k3s[0-9]+))?$`)

func parseK3sVersion(text string) (K3sVersion, *finding) {
	m := k3sVersionForm.FindStringSubmatch(text)
	if m == nil {
		hint := "v1.31.14+k3s1, or 1.31 for the patch release that nixpkgs has"
		if regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`).MatchString(text) {
			hint = "with k3s's own number: " + text + "+k3s1; or 1.31 for the patch release that nixpkgs has"
		}
		return K3sVersion{}, &finding{"version-invalid", "not a version of k3s", hint}
	}
	version := K3sVersion{Minor: m[1]}
	if m[2] != "" {
		version.Patch = m[1] + m[2] + "+" + m[3]
	}
	return version, nil
}

// parseNetmask gives the length of the prefix: "24", "/24" and "255.255.255.0" are the same.
func parseNetmask(text string) (bits int, wrong *finding) {
	wrong = &finding{"netmask-invalid", "not a netmask", "24, /24 or 255.255.255.0"}
	if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
		mask := address.As4()
		value := uint32(mask[0])<<24 | uint32(mask[1])<<16 | uint32(mask[2])<<8 | uint32(mask[3])
		for value<<bits != 0 {
			bits++
		}
		if bits > 0 && value != ^uint32(0)<<(32-bits) {
			return 0, &finding{"netmask-invalid", "not a netmask: its ones do not stand together", "24, /24 or 255.255.255.0"}
		}
	} else if bits, err = strconv.Atoi(strings.TrimPrefix(text, "/")); err != nil || bits < 0 || bits > 32 || strconv.Itoa(bits) != strings.TrimPrefix(text, "/") {
		return 0, wrong
	}
	if bits < 8 || bits > 30 {
		return 0, &finding{"netmask-invalid", "no LAN has this netmask", "between 8 and 30, mostly 24"}
	}
	return bits, nil
}

// document is a YAML file read strictly.
type document struct {
	file     string
	problems diag.Problems
	// keys are the scalars and lists by their path ("versions.k3s")
	keys map[string]*yaml.Node
	// slips are known keys of which a misspelt one was reported, so that they are not missed again
	slips map[string]bool
	// unreadable: nothing can be said about what is missing
	unreadable bool
	// cells are the rows of a sheet, by line, and the place of their values; nil in a YAML file
	cells  map[int][]string
	values int
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
	d.problems = append(d.problems, diag.Problem{
		File: d.fileAt(line, value), Line: line, Column: key, Value: value, Severity: diag.Error,
		Code: f.code, Message: f.message, Hint: f.hint,
	})
}

// fail reports an error about the value of a key.
func (d *document) fail(key string, node *yaml.Node, f *finding) {
	d.report(node.Line, key, node.Value, *f)
}

// line of a key's value, 0 if it is not in the file.
func (d *document) line(key string) int {
	if node := d.keys[key]; node != nil {
		return node.Line
	}
	return 0
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line ([0-9]+): )?`)

// oddText finds what no editor shows and no parser explains: text that is not UTF-8, and blanks that
// are not blanks at the beginning of a line or behind a colon.
func oddText(data []byte) (line int, what string) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 0, "" // UTF-16, which yaml.v3 reads
	}
	for number, text := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(text) {
			return number + 1, "a character here is not UTF-8"
		}
		key, _, _ := bytes.Cut(text, []byte("#"))
		if bytes.ContainsRune(key, '\u00a0') {
			return number + 1, "there is a no-break space (U+00A0), which is no blank in YAML"
		}
	}
	return 0, ""
}

// YAMLError gives the line of an error of yaml.v3, 0 if it tells none, and its message without it.
func YAMLError(err error) (line int, message string) {
	message = err.Error()
	var several *yaml.TypeError
	if errors.As(err, &several) && len(several.Errors) > 0 {
		message = several.Errors[0]
	}
	m := yamlLine.FindStringSubmatch(message)
	line, _ = strconv.Atoi(m[1])
	message = message[len(m[0]):]
	if line > 0 && strings.HasPrefix(message, "did not find expected") {
		line++ // yaml.v3 counts from 0 in the errors of its parser, from 1 in those of its scanner
	}
	return line, message
}

// readDocument reads a mapping with the known keys, a dot for each level; others are problems.
func readDocument(file string, data []byte, known []string) *document {
	d := &document{file: file, keys: map[string]*yaml.Node{}, slips: map[string]bool{}}
	if line, what := oddText(data); what != "" {
		d.unreadable = true
		d.report(line, "", "", finding{"yaml-syntax", what, "write the line anew, or save the file as UTF-8"})
		return d
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	err := decoder.Decode(&root)
	if err == nil {
		if second := decoder.Decode(new(yaml.Node)); second == nil {
			d.unreadable = true
			d.report(0, "", "", finding{"yaml-syntax", "there is more than one document in the file", "delete the line ---"})
			return d
		} else if second != io.EOF {
			err = second
		}
	}
	if err != nil && err != io.EOF {
		d.unreadable = true
		line, message := YAMLError(err)
		d.report(line, "", "", finding{"yaml-syntax", message, "key: value, with blanks (no tabs) at the beginning of a line"})
		return d
	}
	if len(root.Content) == 0 || isNull(root.Content[0]) {
		return d
	}
	d.walk("", root.Content[0], known)
	return d
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func (d *document) walk(path string, node *yaml.Node, known []string) {
	if node.Kind != yaml.MappingNode {
		d.unreadable = true
		d.report(node.Line, path, node.Value, finding{"yaml-syntax", "there must be keys with values here", "key: value"})
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		key := path + name.Value
		isParent := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
		switch {
		case seen[key]:
			d.report(name.Line, key, "", finding{"key-duplicate", "the key is given twice", "delete one of the two"})
			d.forget(key, known)
		case isParent:
			if !isNull(value) {
				d.walk(key+".", value, known)
			}
		case slices.Contains(known, key):
			if value.Kind == yaml.MappingNode {
				d.report(value.Line, key, "", finding{"value-invalid", "a value is needed here, not keys", ""})
				d.slips[key] = true
			} else if !isNull(value) {
				d.keys[key] = value
			}
		default:
			d.unknownKey(name, key, known)
		}
		seen[key] = true
	}
}

// forget drops a key, and all below it, whose value is uncertain. It is not reported as missing.
func (d *document) forget(key string, known []string) {
	for _, k := range known {
		if k == key || strings.HasPrefix(k, key+".") {
			delete(d.keys, k)
			d.slips[k] = true
		}
	}
}

func (d *document) unknownKey(name *yaml.Node, key string, known []string) {
	hint := "the keys are: " + strings.Join(known, ", ")
	normal := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	nearest := diag.Nearest(normal, known)
	if slices.Contains(known, normal) {
		nearest = normal
	}
	for _, k := range known {
		// a key of versions that stands one level too high
		if nearest == "" && strings.HasSuffix(k, "."+normal) {
			nearest = k
		}
	}
	if below := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return !strings.HasPrefix(k, key+".") }); len(below) > 0 {
		hint = "write " + strings.Join(below, ", ") + ", each in a row of its own" // a sheet has no levels
	}
	if nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", nearest)
		d.slips[nearest] = true
	}
	d.report(name.Line, key, "", finding{"key-unknown", "k3splan does not know this key", hint})
}

// text gives a single value, trimmed; ok is false if it is not there or not a single value.
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

// list gives the items of a list; a single value is a list of one.
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
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		if item.Kind != yaml.ScalarNode {
			d.report(item.Line, key, "", finding{"value-invalid", "the items of this list must be single values", ""})
			continue
		}
		items = append(items, item)
	}
	return items
}

var (
	versionKeys = []string{"versions.nixos", "versions.k3s", "versions.disko"}
	networkKeys = slices.Concat([]string{
		"netmask", "gateway", "nameservers", "domain", "timezone", "pod_cidr", "service_cidr", "tls_san", "address_range",
		secretsKey, passPrefixKey,
	}, versionKeys)
)

// listKeys may have several values.
var listKeys = []string{"nameservers", "tls_san"}

// networkReader turns the two YAML files, or a sheet, into a Network.
type networkReader struct {
	*document
	// versions is the file in which versions are told: network.yaml or versions.yaml
	versions *document
	network  Network
}

// noNetwork is the reader of a network that could not be read at all.
func noNetwork(file string, problems ...diag.Problem) *networkReader {
	d := &document{file: file, problems: problems, unreadable: true}
	return &networkReader{document: d, versions: d}
}

// readNetworkFiles reads network.yaml and, where it exists, versions.yaml.
func readNetworkFiles(fsys fs.FS) *networkReader {
	data, problem := readFile(fsys, NetworkFile)
	if problem != nil {
		return noNetwork(NetworkFile, *problem)
	}
	r := &networkReader{document: readDocument(NetworkFile, data, networkKeys)}
	r.versions = r.document
	r.mergeVersions(fsys)
	return r
}

// read gives the network; a key that is wrong leaves the zero value in it.
func (r *networkReader) read(needsK3s bool) Network {
	if r.keys == nil {
		return Network{Secrets: SecretStore{Kind: SecretUnknown}}
	}
	r.readAddresses()
	r.readNames()
	r.readVersions(needsK3s)
	r.readSecretStore()
	r.notePlaces()
	return r.network
}

// problems are those of all the files that were read.
func (r *networkReader) problems() diag.Problems {
	if r.versions != r.document {
		return slices.Concat(r.document.problems, r.versions.problems)
	}
	return r.document.problems
}

// mergeVersions takes in versions.yaml, where the keys may stand below `versions` or alone.
func (r *networkReader) mergeVersions(fsys fs.FS) {
	data, problem := readFile(fsys, VersionsFile)
	if problem != nil {
		if problem.Code != "file-missing" {
			r.document.problems = append(r.document.problems, *problem)
		}
		return
	}
	var alone []string
	for _, key := range versionKeys {
		alone = append(alone, strings.TrimPrefix(key, "versions."))
	}
	d := readDocument(VersionsFile, data, slices.Concat(versionKeys, alone))
	for _, key := range versionKeys {
		short := strings.TrimPrefix(key, "versions.")
		node := d.keys[key]
		if node == nil {
			node = d.keys[short]
		}
		switch {
		case node == nil:
		case r.keys[key] != nil:
			d.report(node.Line, key, node.Value, finding{"key-duplicate", "the version stands in plans/network.yaml as well", "delete one of the two"})
		default:
			d.keys[key] = node
		}
		d.slips[key] = d.slips[key] || d.slips[short]
	}
	r.versions = d
}

// version gives a version and the document in which it stands.
func (r *networkReader) version(key string) (*document, string, bool) {
	for _, d := range []*document{r.document, r.versions} {
		if d.keys[key] != nil {
			text, ok := d.text(key)
			return d, text, ok
		}
	}
	return r.document, "", false
}

// missing reports a required key that is not there and not misspelt either.
func (r *networkReader) missing(key, example, more string) {
	for _, d := range []*document{r.document, r.versions} {
		if d.unreadable || d.slips[key] {
			return
		}
	}
	hint := key + ": " + example
	if short, ok := strings.CutPrefix(key, "versions."); ok {
		hint = fmt.Sprintf("versions: {%s: %s}", short, example)
	}
	if r.cells != nil {
		hint = fmt.Sprintf("write a row with %s in one cell, and %s in the next", key, example)
	}
	r.report(0, key, "", finding{"key-missing", "the key is missing", hint + more})
}

func (r *networkReader) readAddresses() {
	bits := 0
	if text, ok := r.text("netmask"); ok {
		var wrong *finding
		if bits, wrong = parseNetmask(text); wrong != nil {
			r.fail("netmask", r.keys["netmask"], wrong)
		}
	} else {
		r.missing("netmask", "24", "")
	}
	if text, ok := r.text("gateway"); ok {
		gateway, wrong := parseAddress(text)
		if wrong != nil {
			wrong.code = "gateway-invalid"
			r.fail("gateway", r.keys["gateway"], wrong)
		} else if bits != 0 {
			r.setSubnet(gateway, bits)
		}
	} else {
		r.missing("gateway", "10.0.100.1", ", the address of your router")
	}
	r.readNameservers()
	r.network.PodCIDR = r.cidr("pod_cidr", defaultPodCIDR, 8, 24,
		"k3s gives each node a /24 of it: at least a /24, such as 10.42.0.0/16")
	// Kubernetes refuses a service network of more than 20 bits
	r.network.ServiceCIDR = r.cidr("service_cidr", defaultServiceCIDR, 12, 28,
		"between /12 and /28, such as 10.43.0.0/16")
	r.checkOverlaps()
	r.readRange()
}

// readNameservers reads them, separated in whatever way. Wrong ones are none, not the default.
func (r *networkReader) readNameservers() {
	wrong := false
	for _, item := range r.list("nameservers") {
		for text := range strings.FieldsFuncSeq(item.Value, func(c rune) bool { return c == ' ' || c == ',' }) {
			address, found := parseAddress(text)
			if found == nil && (address.IsUnspecified() || address.IsMulticast()) {
				found = &finding{"address-invalid", "not the address of a machine", ""}
			}
			if found != nil {
				wrong = true
				r.report(item.Line, "nameservers", text, *found)
				continue
			}
			r.network.Nameservers = append(r.network.Nameservers, address)
		}
	}
	if len(r.network.Nameservers) == 0 && !wrong {
		r.network.Nameservers = defaultNameservers
	}
}

// AddressRange is a range of IPv4 addresses, both ends included.
type AddressRange struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// Contains tells whether the address lies in the range.
func (a AddressRange) Contains(address netip.Addr) bool {
	return a.First.Compare(address) <= 0 && address.Compare(a.Last) <= 0
}

func (a AddressRange) String() string { return a.First.String() + "-" + a.Last.String() }

// readRange reads FIRST-LAST or a network. Without the key the range is what the subnet has
// between its own address and the broadcast address.
func (r *networkReader) readRange() {
	subnet := r.network.Subnet
	if subnet.IsValid() {
		r.network.AddressRange = AddressRange{subnet.Addr().Next(), lastAddress(subnet).Prev()}
	}
	text, ok := r.text("address_range")
	if !ok {
		return
	}
	found, wrong := parseRange(text)
	if wrong == nil && subnet.IsValid() && !(subnet.Contains(found.First) && subnet.Contains(found.Last)) {
		wrong = &finding{"range-invalid", fmt.Sprintf("not in the subnet %s", subnet), "such as " + r.network.AddressRange.String()}
	}
	if wrong != nil {
		r.fail("address_range", r.keys["address_range"], wrong)
		return
	}
	r.network.AddressRange = found
}

func parseRange(text string) (AddressRange, *finding) {
	wrong := &finding{"range-invalid", "not a range of IPv4 addresses", "10.0.100.32-10.0.100.63, or 10.0.100.32/27"}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || !prefix.Addr().Is4() || prefix != prefix.Masked() {
			return AddressRange{}, wrong
		}
		return AddressRange{prefix.Addr(), lastAddress(prefix)}, nil
	}
	first, last, both := strings.Cut(text, "-")
	if !both {
		return AddressRange{}, wrong
	}
	var found AddressRange
	for _, end := range []struct {
		text string
		to   *netip.Addr
	}{{first, &found.First}, {last, &found.Last}} {
		address, wrongEnd := parseAddress(strings.TrimSpace(end.text))
		if wrongEnd != nil {
			return AddressRange{}, wrong
		}
		*end.to = address
	}
	if found.Last.Less(found.First) {
		return AddressRange{}, &finding{"range-invalid", "the first address comes after the last", fmt.Sprintf("write %s-%s", found.Last, found.First)}
	}
	return found, nil
}

func (r *networkReader) setSubnet(gateway netip.Addr, bits int) {
	subnet := netip.PrefixFrom(gateway, bits).Masked()
	if !gateway.IsGlobalUnicast() || gateway == subnet.Addr() || gateway == lastAddress(subnet) {
		r.fail("gateway", r.keys["gateway"], &finding{"gateway-invalid", fmt.Sprintf("not an address of a machine in %s", subnet),
			"the address of your router in the LAN"})
		return
	}
	r.network.Gateway, r.network.Subnet = gateway, subnet
}

// lastAddress is the broadcast address of an IPv4 network.
func lastAddress(network netip.Prefix) netip.Addr {
	address := network.Masked().Addr().As4()
	for bit := network.Bits(); bit < 32; bit++ {
		address[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(address)
}

func (r *networkReader) cidr(key string, byDefault netip.Prefix, largest, smallest int, hint string) netip.Prefix {
	text, ok := r.text(key)
	if !ok {
		return byDefault
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !prefix.Addr().Is4() || !prefix.Addr().IsGlobalUnicast():
		r.fail(key, r.keys[key], &finding{"cidr-invalid", "not an IPv4 network", "such as " + byDefault.String()})
	case prefix != prefix.Masked():
		r.fail(key, r.keys[key], &finding{"cidr-invalid", "not the first address of the network", "write " + prefix.Masked().String()})
	case prefix.Bits() < largest || prefix.Bits() > smallest:
		r.fail(key, r.keys[key], &finding{"cidr-invalid", "k3s cannot work with a network of this size", hint})
	default:
		return prefix
	}
	return netip.Prefix{}
}

func (r *networkReader) checkOverlaps() {
	n := r.network
	pairs := []struct {
		key          string // where it is reported
		a, b         netip.Prefix
		aName, bName string
	}{
		{"pod_cidr", n.PodCIDR, n.Subnet, "the pod network", "the LAN"},
		{"service_cidr", n.ServiceCIDR, n.Subnet, "the service network", "the LAN"},
		{"service_cidr", n.ServiceCIDR, n.PodCIDR, "the service network", "the pod network"},
	}
	for _, pair := range pairs {
		if !pair.a.IsValid() || !pair.b.IsValid() || !pair.a.Overlaps(pair.b) {
			continue
		}
		// a default that is in the way of the LAN is told where the LAN is defined
		line := r.line(pair.key)
		if line == 0 && pair.b == n.Subnet {
			line = r.line("gateway")
		} else if line == 0 {
			line = r.line("pod_cidr")
		}
		r.report(line, pair.key, pair.a.String(), finding{"cidr-overlap",
			fmt.Sprintf("%s overlaps with %s (%s)", pair.aName, pair.bName, pair.b),
			fmt.Sprintf("choose another network: %s: …", pair.key)})
	}
}

// notIANA finds names that lead to a time zone on some machines, and are none: the machine's own zone,
// other forms of the same zones, and what is only a path.
var notIANA = regexp.MustCompile(`^(?:localtime|posixrules|Factory)$|^(?:posix|right)/|//`)

func (r *networkReader) readNames() {
	if text, ok := r.text("domain"); ok {
		text = strings.ToLower(strings.Trim(text, "."))
		if !isDNSName(text) {
			r.fail("domain", r.keys["domain"], &finding{"domain-invalid", "not a DNS name", "such as home.arpa"})
		} else {
			r.network.Domain = text
		}
	}
	if text, ok := r.text("timezone"); ok {
		if _, err := time.LoadLocation(text); err != nil || text == "Local" || text == "" || notIANA.MatchString(text) {
			r.fail("timezone", r.keys["timezone"], &finding{"timezone-invalid", "no such time zone", "such as Europe/Berlin, in this spelling"})
		} else {
			r.network.Timezone = text
		}
	}
	for _, item := range r.list("tls_san") {
		name := strings.ToLower(strings.TrimSpace(item.Value))
		if _, err := netip.ParseAddr(name); err != nil && !isDNSName(name) {
			r.report(item.Line, "tls_san", item.Value, finding{"tls-san-invalid", "not a DNS name, not an address", ""})
			continue
		}
		r.network.TLSSAN = append(r.network.TLSSAN, name)
	}
	slices.Sort(r.network.TLSSAN)
	r.network.TLSSAN = slices.Compact(r.network.TLSSAN)
}

func (r *networkReader) readVersions(needsK3s bool) {
	r.network.Versions.NixOS = r.source(SourceNixpkgs, "versions.nixos", "")
	r.network.Versions.Disko = r.source(SourceDisko, "versions.disko", defaultDisko)
	if d, text, ok := r.version("versions.k3s"); ok {
		version, wrong := parseK3sVersion(text)
		if wrong != nil {
			d.fail("versions.k3s", d.keys["versions.k3s"], wrong)
		}
		r.network.Versions.K3s = version
	} else if needsK3s {
		r.missing("versions.k3s", "v1.31.14+k3s1", ", or 1.31 for the patch release that nixpkgs has")
	}
}

func (r *networkReader) source(kind SourceKind, key, byDefault string) Source {
	d, text, ok := r.version(key)
	if !ok && byDefault == "" {
		r.missing(key, "nixos-24.11", "")
		return Source{}
	}
	if !ok {
		text = byDefault
	}
	source, err := ParseSource(kind, text)
	if err != nil {
		f := &finding{code: "version-invalid", message: err.Error()}
		if hinted, ok := err.(interface{ Hint() string }); ok {
			f.hint = hinted.Hint()
		}
		shown := *d.keys[key]
		if strings.Contains(text, "@") {
			shown.Value = "" // a URL with a login in it
		}
		d.fail(key, &shown, f)
	}
	return source
}
