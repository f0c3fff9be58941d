package plan

import (
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked against IANA's list, also where the machine has none

	"k3splan/internal/diag"
)

var (
	versionKeys = []string{"versions.nixos", "versions.k3s", "versions.disko", "versions.state", "versions.permit_ended"}
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
	// versions is the document with the versions: network.yaml or versions.yaml
	versions *document
	network  Network
}

// noNetwork is the reader of a network that could not be read at all.
func noNetwork(file string, problems ...diag.Problem) *networkReader {
	d := &document{file: file, unreadable: true}
	d.found.Add(problems...)
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

// read returns the network; a key that is wrong leaves the zero value in it.
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

// allProblems returns those of all the files that were read.
func (r *networkReader) allProblems() diag.Problems {
	if r.versions != r.document {
		return slices.Concat(r.document.found.Problems(), r.versions.found.Problems())
	}
	return r.document.found.Problems()
}

// mergeVersions takes in versions.yaml, whose keys may be below `versions` or on the top level.
func (r *networkReader) mergeVersions(fsys fs.FS) {
	data, problem := readFile(fsys, VersionsFile)
	if problem != nil {
		if problem.Code != "file-missing" {
			r.document.found.Add(*problem)
		}
		return
	}
	var topLevel []string
	for _, key := range versionKeys {
		topLevel = append(topLevel, strings.TrimPrefix(key, "versions."))
	}
	d := readDocument(VersionsFile, data, slices.Concat(versionKeys, topLevel))
	for _, key := range versionKeys {
		short := strings.TrimPrefix(key, "versions.")
		node := d.keys[key]
		if node == nil {
			node = d.keys[short]
		}
		switch {
		case node == nil:
		case r.keys[key] != nil:
			d.report(node.Line, key, node.Value, finding{"key-duplicate", "the version is in plans/network.yaml too", "delete one of the two"})
		default:
			d.keys[key] = node
		}
		d.slips[key] = d.slips[key] || d.slips[short]
	}
	r.versions = d
}

// version returns a version and the document that has it.
func (r *networkReader) version(key string) (*document, string, bool) {
	for _, d := range []*document{r.document, r.versions} {
		if d.keys[key] != nil {
			text, ok := d.text(key)
			return d, text, ok
		}
	}
	return r.document, "", false
}

// missing reports a required key that is neither there nor misspelt.
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
	for _, d := range []*document{r.document, r.versions} {
		if line := d.empty[key]; line != 0 {
			d.report(line, key, "", finding{"key-missing", "the value is missing", hint + more})
			return
		}
	}
	r.report(0, key, "", finding{"key-missing", "the key is missing", hint + more})
}

func (r *networkReader) readAddresses() {
	bits := 0
	if text, ok := r.text("netmask"); ok {
		var wrong *finding
		if bits, wrong = parseNetmask(text); wrong != nil {
			r.fail("netmask", wrong)
		}
	} else {
		r.missing("netmask", "24", "")
	}
	if text, ok := r.text("gateway"); ok {
		gateway, wrong := parseAddress(text)
		if wrong != nil {
			wrong.code = "gateway-invalid"
			r.fail("gateway", wrong)
		} else if bits != 0 {
			r.setSubnet(gateway, bits)
		}
	} else {
		r.missing("gateway", "10.0.100.1", ", the address of your router")
	}
	r.network.PodCIDR = r.cidr("pod_cidr", defaultPodCIDR, 8, 24,
		"k3s gives each node a /24 of it: at least a /24, such as 10.42.0.0/16")
	// Kubernetes refuses a service network of more than 20 bits
	r.network.ServiceCIDR = r.cidr("service_cidr", defaultServiceCIDR, 12, 28,
		"between /12 and /28, such as 10.43.0.0/16")
	r.readNameservers()
	r.checkOverlaps()
	r.readRange()
}

// readNameservers reads them, separated by blanks or commas or as a list. If all are wrong there are
// none; the default is for a plan without the key.
func (r *networkReader) readNameservers() {
	wrong := r.slips["nameservers"]
	for _, item := range r.list("nameservers") {
		for text := range strings.FieldsFuncSeq(item.Value, func(c rune) bool { return c == ' ' || c == ',' }) {
			address, found := parseAddress(text)
			if found == nil {
				found = r.notInLAN(address)
			} else if found.hint == addressForm {
				found.hint = serverHint
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

const serverHint = "the IPv4 address of a server in the LAN, or behind its router"

// notInLAN refuses an address that cannot be that of a server which hosts and containers ask.
func (r *networkReader) notInLAN(address netip.Addr) *finding {
	n := r.network
	switch {
	case n.Subnet.IsValid() && address == n.Subnet.Addr():
		return &finding{"address-reserved", fmt.Sprintf("the address of the network %s itself", n.Subnet), serverHint}
	case n.Subnet.IsValid() && address == lastAddress(n.Subnet):
		return &finding{"address-reserved", fmt.Sprintf("the broadcast address of %s", n.Subnet), serverHint}
	case !address.IsGlobalUnicast():
		return &finding{"address-reserved", linkLocal, serverHint}
	case n.PodCIDR.Contains(address):
		return &finding{"address-reserved", fmt.Sprintf("in the pod network %s, which hosts do not reach", n.PodCIDR), "an address outside pod_cidr"}
	case n.ServiceCIDR.Contains(address):
		return &finding{"address-reserved", fmt.Sprintf("in the service network %s, which hosts do not reach", n.ServiceCIDR), "an address outside service_cidr"}
	}
	return nil
}

// readRange reads address_range. Without the key the range is what the subnet has between its own
// address and the broadcast address.
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
		r.fail("address_range", wrong)
		return
	}
	r.network.AddressRange = found
}

const linkLocal = "a link-local address, which is not routed"

func (r *networkReader) setSubnet(gateway netip.Addr, bits int) {
	subnet := netip.PrefixFrom(gateway, bits).Masked()
	wrong := ""
	switch {
	case gateway == subnet.Addr():
		wrong = fmt.Sprintf("the address of the network %s itself", subnet)
	case gateway == lastAddress(subnet):
		wrong = fmt.Sprintf("the broadcast address of %s", subnet)
	case !gateway.IsGlobalUnicast():
		wrong = linkLocal
	}
	if wrong != "" {
		r.fail("gateway", &finding{"gateway-invalid", wrong, "the address of your router in the LAN"})
		return
	}
	r.network.Gateway, r.network.Subnet = gateway, subnet
}

// cidr reads a network of k3s with a prefix of largest to smallest bits.
func (r *networkReader) cidr(key string, byDefault netip.Prefix, largest, smallest int, hint string) netip.Prefix {
	text, ok := r.text(key)
	switch {
	case r.slips[key]:
		return netip.Prefix{}
	case !ok:
		return byDefault
	case holdsIPv6(text):
		r.fail(key, &finding{"cidr-invalid", "IPv6 is not supported", "k3splan supports IPv4 only, neither IPv6 nor dual stack: one IPv4 network, such as " + byDefault.String()})
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		r.fail(key, &finding{"cidr-invalid", "not an IPv4 network", "such as " + byDefault.String()})
	case notAMachine(prefix.Addr()) != "" || !prefix.Addr().IsGlobalUnicast():
		r.fail(key, &finding{"cidr-invalid", "not a network for machines, but reserved", "such as " + byDefault.String()})
	case prefix != prefix.Masked():
		r.fail(key, &finding{"cidr-invalid", "not the first address of the network", "write " + prefix.Masked().String()})
	case prefix.Bits() < largest || prefix.Bits() > smallest:
		r.fail(key, &finding{"cidr-invalid", "k3s cannot work with a network of this size", hint})
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
		// a default that is in the way of the LAN is reported where the LAN is defined
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
			r.fail("domain", &finding{"domain-invalid", "not a DNS name", "such as home.arpa"})
		} else {
			r.network.Domain = text
		}
	}
	if text, ok := r.text("timezone"); ok {
		if _, err := time.LoadLocation(text); err != nil || text == "Local" || text == "" || notIANA.MatchString(text) {
			r.fail("timezone", &finding{"timezone-invalid", "unknown time zone", "such as Europe/Berlin, in this spelling"})
		} else {
			r.network.Timezone = text
		}
	}
	for _, item := range r.list("tls_san") {
		name, wrong := r.checkSAN(strings.TrimSpace(item.Value))
		if wrong != nil {
			r.report(item.Line, "tls_san", item.Value, *wrong)
			continue
		}
		r.network.TLSSAN = append(r.network.TLSSAN, name)
	}
	slices.Sort(r.network.TLSSAN)
	r.network.TLSSAN = slices.Compact(r.network.TLSSAN)
}

// checkSAN returns a name or address for the certificate of the Kubernetes API in normal form.
func (r *networkReader) checkSAN(text string) (name string, wrong *finding) {
	const code = "tls-san-invalid"
	name = strings.ToLower(text)
	address, err := netip.ParseAddr(name)
	switch {
	case err == nil && address.Zone() != "":
		return "", &finding{code, "a certificate holds no address with a zone", "without " + "%" + address.Zone()}
	case err == nil && (address.IsUnspecified() || address.IsMulticast()):
		return "", &finding{code, "not the address of a machine", "an address or name by which you reach the servers"}
	case err == nil && address.Is4() && notAMachine(address) != "" && !address.IsLoopback(): // a tunnel ends at one
		return "", &finding{code, notAMachine(address), "an address or name by which you reach the servers"}
	case err == nil && r.network.Subnet.IsValid() && (address == r.network.Subnet.Addr() || address == lastAddress(r.network.Subnet)):
		return "", r.notInLAN(address)
	case err == nil:
		return address.String(), nil
	case isDNSName(name):
		return name, nil
	}
	hint := "a DNS name or an address; several are a list: [a.example, b.example]"
	host, port, _ := strings.Cut(strings.TrimPrefix(name, "https://"), ":")
	switch {
	case strings.Contains(name, "://"):
		hint = "the name alone, without https:// and port"
	case port != "" && isDNSName(host), port != "" && isAddress(host):
		hint = "without the port"
	case strings.Contains(name, "/"):
		hint = "one address or name, not a network"
	case strings.Contains(name, "*"):
		hint = "each name in full: k3s does not make certificates with wildcards"
	}
	return "", &finding{code, "not a DNS name, not an address", hint}
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func (r *networkReader) readVersions(needsK3s bool) {
	r.network.Versions.NixOS = r.source(SourceNixpkgs, "versions.nixos", "")
	r.network.Versions.Disko = r.source(SourceDisko, "versions.disko", defaultDisko)
	if d, text, ok := r.version("versions.k3s"); ok {
		version, wrong := parseK3sVersion(text)
		if wrong != nil {
			d.fail("versions.k3s", wrong)
		}
		r.network.Versions.K3s = version
	} else if needsK3s {
		r.missing("versions.k3s", newK3s(), "")
	}
	r.readState()
	if needsK3s {
		r.checkK3s()
	}
	r.checkRelease()
}

func (r *networkReader) source(kind SourceKind, key, byDefault string) Source {
	d, text, ok := r.version(key)
	if !ok && byDefault == "" {
		r.missing(key, newRelease().Branch(), "")
		return Source{}
	}
	if !ok {
		text = byDefault
	}
	source, err := ParseSource(kind, text)
	if err != nil {
		shown := d.keys[key].Value
		if strings.Contains(text, "@") {
			shown = "" // a URL with a login in it
		}
		d.report(d.line(key), key, shown, finding{"version-invalid", err.Error(), diag.HintOf(err)})
	}
	return source
}

func (r *networkReader) readSecretStore() {
	store := SecretStore{Kind: SecretFiles}
	text, ok := r.text(secretsKey)
	switch kind := SecretKind(strings.ToLower(text)); {
	case r.unreadable || r.slips[secretsKey]:
		store.Kind = SecretUnknown
	case !ok:
	case slices.Contains(SecretKinds(), string(kind)):
		store.Kind = kind
	default:
		store.Kind = SecretUnknown
		hint := diag.DidYouMean(string(kind), SecretKinds())
		if hint == "" {
			hint = "files, age or pass"
		}
		r.fail(secretsKey, &finding{"value-invalid", "unknown way to keep secrets", hint})
	}
	if store.Kind == SecretPass {
		store = r.readPassPrefix(store)
	}
	r.network.Secrets = store
}

func (r *networkReader) readPassPrefix(store SecretStore) SecretStore {
	prefix, given := r.text(passPrefixKey)
	switch {
	case !given:
		// never guessed: two racks must not share their tokens by chance
		r.missing(passPrefixKey, "k3splan/my-rack", ", a folder of entries for this cluster alone")
	case CheckPassPrefix(prefix) != nil:
		r.fail(passPrefixKey, &finding{"value-invalid", CheckPassPrefix(prefix).Error(), "pass_prefix: k3splan/my-rack"})
	default:
		return SecretStore{Kind: SecretPass, Prefix: prefix}
	}
	return SecretStore{Kind: SecretUnknown}
}

// notePlaces remembers where the keys are.
func (r *networkReader) notePlaces() {
	r.network.places = map[string]diag.Problem{}
	for _, key := range networkKeys {
		for _, d := range []*document{r.document, r.versions} {
			line := d.line(key)
			if line == 0 || r.network.places[key].File != "" {
				continue
			}
			value := d.keys[key]
			if len(value.Content) > 0 {
				value = value.Content[0] // of a list
			}
			r.network.places[key] = diag.Problem{File: d.fileAt(line, value.Value), Line: line}
		}
	}
}
