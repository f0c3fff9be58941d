package plan

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
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
	var value any
	require.NoError(t, yaml.Unmarshal([]byte(text), &value), text)
	data, err := json.Marshal(value)
	require.NoError(t, err)
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	require.NoError(t, err)
	return schema.Validate(instance)
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
	_, problems := Load(project(map[string]string{networkFile: uncommented}))
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
		strings.Replace(goodNetwork, `"1.31"`, "v1.31.4", 1),
		goodNetwork + "nameservers: [dns.example]\n",
		goodNetwork + "pod_cidr: 10.42.0.0/8\n",
		goodNetwork + "address_range: 10.0.100.3\n",
		goodNetwork + "domain: [a]\n",
		goodNetwork + "timezone: {a: b}\n",
		goodNetwork + "nixos: '24.11'\n",
		"[]",
	} {
		require.Error(t, checkSchema(t, schema, wrong), wrong)
		_, problems := Load(project(map[string]string{networkFile: wrong}))
		require.NotZero(t, problems.Errors(), "the reader refuses it as well: %s", wrong)
	}
}

// What the reader accepts the schema accepts: no editor marks what is right.
func TestSchemaRefusesNothingThatIsRight(t *testing.T) {
	schema := compiledSchema(t)
	values := map[string][]string{
		"netmask":       {"24", "/24", "'24'", "' 24 '", "255.255.255.0", "8", "30", "'08'", "31", "255.255.255.252"},
		"gateway":       {"10.0.100.1", "' 10.0.100.1 '", "router", "10.0.100.1 # comment"},
		"nameservers":   {"[]", "[9.9.9.9, 1.1.1.1]", "9.9.9.9", "'9.9.9.9, 1.1.1.1'", "~", "[dns]", "[9.9.9.9 1.1.1.1]"},
		"domain":        {"home.arpa", "Home.Arpa.", "' a '", "~", "a_b"},
		"timezone":      {"Europe/Berlin", "UTC", "Etc/GMT+1", "America/Port-au-Prince", "~", "Mars/X"},
		"address_range": {"10.0.100.3-10.0.100.9", "'10.0.100.3 - 10.0.100.9'", "10.0.100.0/28", "~", "10.0.100.9-10.0.100.3"},
		"pod_cidr":      {"10.99.0.0/16", "' 10.99.0.0/20 '", "10.99.0.0/8", "~"},
		"service_cidr":  {"10.98.0.0/16", "10.98.0.0/28", "~"},
		"tls_san":       {"[]", "a.example", "[a.example, 10.0.0.1, 'fe80::1']", "~", "[a b]"},
	}
	versions := map[string][]string{
		"nixos": {"nixos-24.11", "24.11", "'24.11'", "<nixpkgs>", "../nixpkgs", "23.05", "https://example.org/x.tar.gz"},
		"k3s":   {"1.31", "'1.31'", "v1.31.14+k3s1", "1.31.14-k3s2", "v1.31", "1.31.14"},
		"disko": {"latest", "v1.11.0", "1.11.0", "~"},
	}
	right := 0
	rapid.Check(t, func(t *rapid.T) {
		draw := func(indent string, keys map[string][]string) string {
			text := ""
			for _, key := range slices.Sorted(maps.Keys(keys)) {
				if rapid.IntRange(0, 3).Draw(t, key+"?") > 0 || key == "netmask" || key == "gateway" || key == "nixos" || key == "k3s" {
					text += indent + key + ": " + rapid.SampledFrom(keys[key]).Draw(t, key) + "\n"
				}
			}
			return text
		}
		text := draw("", values) + "versions:\n" + draw("  ", versions)
		_, problems := Load(project(map[string]string{networkFile: text}))
		if problems.Errors() == 0 {
			right++
			require.NoError(t, checkSchema(t, schema, text), text)
		}
	})
	require.NotZero(t, right)
}
