package plan

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k3splan/internal/diag"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const schemaFile = "../../plans/network.schema.json"

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	require.NoError(t, err)
	return schema
}

// checkSchema looks at a YAML text as an editor does.
func checkSchema(t require.TestingT, schema *jsonschema.Schema, text string) error {
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(text), &root), text)
	datesAreTexts(&root)
	var value any
	require.NoError(t, root.Decode(&value), text)
	data, err := json.Marshal(value)
	require.NoError(t, err)
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	require.NoError(t, err)
	return schema.Validate(instance)
}

// datesAreTexts: editors read YAML 1.2, which has no dates.
func datesAreTexts(node *yaml.Node) {
	if node.Tag == "!!timestamp" {
		node.Tag = "!!str"
	}
	for _, child := range node.Content {
		datesAreTexts(child)
	}
}

// Every key that the reader knows is in the schema, and the other way round, with a description.
func TestSchemaHasTheKeysOfTheReader(t *testing.T) {
	data, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	type object struct {
		Description string
		Properties  map[string]object
	}
	var schema object
	require.NoError(t, json.Unmarshal(data, &schema))
	var keys []string
	var walk func(path string, o object)
	walk = func(path string, o object) {
		for name, property := range o.Properties {
			require.NotEmpty(t, property.Description, path+name)
			if property.Properties == nil {
				keys = append(keys, path+name)
			}
			walk(path+name+".", property)
		}
	}
	walk("", schema)
	require.ElementsMatch(t, networkKeys, keys)
}

// The starter file and the examples are right by the schema; the starter file names it.
func TestSchemaAcceptsOurFiles(t *testing.T) {
	schema := compiledSchema(t)
	for _, file := range []string{"../../plans/network.yaml", "../../examples/rack/plans/network.yaml", "../../examples/single/plans/network.yaml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, checkSchema(t, schema, string(text)), file)
	}
	text, err := os.ReadFile("../../plans/network.yaml")
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(text), "\n")
	require.Equal(t, "# yaml-language-server: $schema=network.schema.json", first)
	// with the optional keys that it shows, too
	uncommented := strings.NewReplacer("# domain", "domain", "# timezone", "timezone", "# address_range", "address_range", "# disko:", "disko:",
		"# pod_cidr", "pod_cidr", "# service_cidr", "service_cidr", "# tls_san", "tls_san").Replace(string(text))
	require.NoError(t, checkSchema(t, schema, uncommented))
	_, problems := Load(project(map[string]string{NetworkFile: uncommented}))
	require.Empty(t, problems)
}

// The schema sees what an editor can see: wrong keys, forms and sizes.
func TestSchemaRefuses(t *testing.T) {
	schema := compiledSchema(t)
	require.NoError(t, checkSchema(t, schema, goodNetwork))
	for _, wrong := range []string{
		strings.Replace(goodNetwork, "gateway", "gatway", 1),
		strings.Replace(goodNetwork, "gateway: 10.0.100.1\n", "", 1),
		strings.Replace(goodNetwork, "24", "31", 1),
		strings.Replace(goodNetwork, "24", "255.0.255", 1),
		strings.Replace(goodNetwork, "10.0.100.1", "10.0.100.256", 1),
		strings.Replace(goodNetwork, "10.0.100.1", "10.0.100.01", 1),
		strings.Replace(goodNetwork, "10.0.100.1", "[10.0.100.1]", 1),
		strings.Replace(goodNetwork, "nixos:", "nixpkgs:", 1),
		strings.Replace(goodNetwork, `"1.35"`, "v1.35.4", 1),
		goodNetwork + "nameservers: [dns.example]\n",
		goodNetwork + "pod_cidr: 10.0.0.0/7\n",
		goodNetwork + "address_range: 10.0.100.3\n",
		goodNetwork + "domain: [a]\n",
		goodNetwork + "timezone: {a: b}\n",
		goodNetwork + "nixos: '24.11'\n",
		goodNetwork + "secrets: vault\n",
		goodNetwork + "secrets: pass\n", // without pass_prefix
		goodNetwork + "nameservers: 9.9.9\n",
		goodNetwork + "domain: a_b\n",
		goodNetwork + "timezone: Central European\n",
		goodNetwork + "service_cidr: 11.0.0.0/8\n",
		goodNetwork + "tls_san: ['*.example']\n",
		strings.Replace(goodNetwork, "24", "'+24'", 1),
		strings.Replace(goodNetwork, "24", "255.0.255.0", 1),
		"[]",
	} {
		require.Error(t, checkSchema(t, schema, wrong), wrong)
		_, problems := Load(project(map[string]string{NetworkFile: wrong}))
		require.NotZero(t, problems.Errors(), "the reader refuses it as well: %s", wrong)
	}
}

// scalars are values of all the kinds that YAML knows, right and wrong for one key or another.
var scalars = []string{
	"24", "'24'", "/24", "' /24 '", "024", "'08'", "0x18", "2_4", "+24", "24.0", "2.4e1", "'+24'", "''", "~", "31", "8", "30",
	"255.255.255.0", "255.255.254.0", "255.128.0.0", "255.0.255.0", "255.255.255.254", "' 255.255.255.0 '", "0.0.0.0",
	"10.0.100.1", "'10.0.100.1 '", "10.0.100.01", "10.0.100.1:80", "10.0.100.256", "10.0.100.1 # comment", "router",
	"[]", "[10.0.100.1]", "[[10.0.100.1]]", "[~]", "['']", "[9.9.9.9, ~]", "[9.9.9.9 1.1.1.1]", "'9.9.9.9, 1.1.1.1'", "',9.9.9.9,'", "'9.9.9.9;1.1.1.1'",
	"{}", "{a: b}", "true", "no", "on", "1.31", "1.30", "'1.30'", "v1.31", "V1.31", "1.31.14", "v1.31.14+k3s1", "1.31.14-k3s1", "1.31.14+rke1",
	"latest", "nixos-24.11", "24.11", "25.05", "unstable", "2024-11-01", "2024-11-01T00:00:00Z", "<nixpkgs>", "../nixpkgs", "/x", "~/x",
	"0123456789012345678901234567890123456789", "1e40", "https://example.org/x.tar.gz", "v1.11.0", "1.11.0", "1.11", "12345",
	"home.arpa", "HOME.arpa.", "..home..", "' a '", "a b", "a_b", "-a", "a-", "münchen.de", "12:30:45", "'*.example'", "[k3s.example, 10.0.0.1]", "[1.5, true, 123]", "[fe80::1%eth0]",
	"Europe/Berlin", "europe/berlin", "UTC", "Local", "Etc/GMT-14", "America/Port-au-Prince", "EST5EDT", "Mars/X",
	"10.0.100.32-10.0.100.63", "'10.0.100.3 - 10.0.100.9'", "10.0.100.32/27", "10.0.100.9-10.0.100.3", "10.0.100.3",
	"10.42.0.0/16", "10.42.0.1/16", "11.0.0.0/8", "11.0.0.0/7", "172.16.0.0/12", "10.99.0.0/24", "10.99.0.0/25", "10.98.0.0/28", "10.98.0.0/29", "' 10.98.0.0/20 '", "10.98.0.0/020", "fd00::/64", "fe80::1",
	"files", "Files", "age", "' age '", "pass", "x/y", "a b/c", "!!str 24", "!!int '24'", "|\n    24", ">-\n    10.0.100.1", "\"9.9.9.9\\t1.1.1.1\"",
}

// What the reader accepts the schema accepts, so that no editor marks what is right: each key with
// each of the values.
func TestSchemaRefusesNothingThatIsRight(t *testing.T) {
	schema := compiledSchema(t)
	right := map[string]int{}
	for _, key := range append(slices.Clone(networkKeys), "versions", "") {
		for _, value := range scalars {
			cells := map[string]string{"netmask": "24", "gateway": "10.0.100.1", "versions.nixos": "nixos-24.11", "versions.k3s": "'1.31'"}
			switch key {
			case passPrefixKey:
				cells[secretsKey] = "pass"
			case secretsKey:
				cells[passPrefixKey] = "k3splan/rack"
			}
			cells[key] = value
			text, versions := "", ""
			for _, name := range slices.Sorted(maps.Keys(cells)) {
				if short, isVersion := strings.CutPrefix(name, "versions."); isVersion {
					versions += "\n  " + short + ": " + cells[name]
				} else if name != "versions" && name != "" {
					text += name + ": " + cells[name] + "\n"
				}
			}
			switch key {
			case "versions":
				versions = " " + value
			case "":
				text, versions = value+"\n", ""
			}
			if key != "" {
				text += "versions:" + versions + "\n"
			}
			if requireAgreement(t, schema, text) {
				right[key]++
			}
		}
	}
	for _, key := range networkKeys {
		require.NotZero(t, right[key], key)
	}
}

// requireAgreement reports whether the reader accepts a network.yaml, and requires the schema to accept
// it then.
func requireAgreement(t *testing.T, schema *jsonschema.Schema, text string) (right bool) {
	t.Helper()
	_, problems := Load(project(map[string]string{NetworkFile: text}))
	problems = slices.DeleteFunc(problems, func(p diag.Problem) bool { return p.File != NetworkFile })
	if problems.Errors() > 0 {
		return false
	}
	require.NoError(t, checkSchema(t, schema, text), text)
	return true
}

// The same for every network.yaml in the scripts of the tests, right and wrong ones.
func TestSchemaAgreesWithTheReaderInAllFixtures(t *testing.T) {
	schema := compiledSchema(t)
	right, wrong := 0, 0
	for _, pattern := range []string{"../../cmd/k3splan/testdata/*.txtar", "../../cmd/k3splan/testdata/*/*.txtar"} {
		scripts, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, script := range scripts {
			archive, err := txtar.ParseFile(script)
			require.NoError(t, err)
			for _, file := range archive.Files {
				if !strings.HasSuffix(file.Name, NetworkFile) {
					continue
				}
				if requireAgreement(t, schema, string(file.Data)) {
					right++
				} else {
					wrong++
				}
			}
		}
	}
	require.NotZero(t, right)
	require.NotZero(t, wrong)
}
