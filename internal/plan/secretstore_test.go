package plan

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const plainNetwork = "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05}\n"

func TestWhereSecretsAreKept(t *testing.T) {
	for name, test := range map[string]struct {
		more string
		want SecretStore
		code string // of the one problem
		hint string
	}{
		"not said":              {"", SecretStore{Kind: SecretFiles}, "", ""},
		"nothing":               {"secrets:\n", SecretStore{Kind: SecretFiles}, "", ""},
		"files":                 {"secrets: files\n", SecretStore{Kind: SecretFiles}, "", ""},
		"age":                   {"secrets: Age\n", SecretStore{Kind: SecretAge}, "", ""},
		"pass":                  {"secrets: pass\npass_prefix: k3splan/my-rack\n", SecretStore{SecretPass, "k3splan/my-rack"}, "", ""},
		"a prefix without pass": {"secrets: age\npass_prefix: x\n", SecretStore{Kind: SecretAge}, "", ""},
		"unknown":               {"secrets: aeg\n", SecretStore{Kind: SecretUnknown}, "value-invalid", `did you mean "age"?`},
		"far off":               {"secrets: vault\n", SecretStore{Kind: SecretUnknown}, "value-invalid", "files, age or pass"},
		"a list":                {"secrets: [age]\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
		"keys":                  {"secrets: {kind: age}\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
		"misspelt key":          {"secret: age\n", SecretStore{Kind: SecretUnknown}, "key-unknown", `did you mean "secrets"?`},
		"no prefix":             {"secrets: pass\n", SecretStore{Kind: SecretUnknown}, "key-missing", "pass_prefix: k3splan/my-rack, a folder of entries for this cluster alone"},
		"a prefix out of it":    {"secrets: pass\npass_prefix: ../x\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
		"an option as prefix":   {"secrets: pass\npass_prefix: --x\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
		"an absolute prefix":    {"secrets: pass\npass_prefix: /x\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
		"an empty part":         {"secrets: pass\npass_prefix: a//b\n", SecretStore{Kind: SecretUnknown}, "value-invalid", ""},
	} {
		t.Run(name, func(t *testing.T) {
			reader := readNetworkFiles(fstest.MapFS{NetworkFile: {Data: []byte(plainNetwork + test.more)}})
			network := reader.read(false)
			problems := reader.allProblems()
			require.Equal(t, test.want, network.Secrets)
			if test.code == "" {
				require.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1)
			require.Equal(t, test.code, problems[0].Code)
			if test.hint != "" {
				require.Equal(t, test.hint, problems[0].Hint)
			}
		})
	}
	for _, text := range []string{"", "\tx", "- a\n"} {
		reader := readNetworkFiles(fstest.MapFS{NetworkFile: {Data: []byte(text)}})
		network := reader.read(false)
		if text == "" {
			require.Equal(t, SecretFiles, network.Secrets.Kind)
		} else {
			require.Equal(t, SecretUnknown, network.Secrets.Kind, "%q", text)
		}
	}
	reader := readNetworkFiles(fstest.MapFS{})
	network := reader.read(false)
	require.Equal(t, SecretUnknown, network.Secrets.Kind)
}

func TestTheModelDoesNotTellWhereSecretsAre(t *testing.T) {
	p, _ := Load(fstest.MapFS{NetworkFile: {Data: []byte(plainNetwork + "secrets: pass\npass_prefix: k3splan/my-rack\n")}})
	require.Equal(t, SecretPass, p.Network.Secrets.Kind)
	text, err := yaml.Marshal(p.Model())
	require.NoError(t, err)
	require.NotContains(t, string(text), "my-rack")
}

func TestSetSecretStore(t *testing.T) {
	age, pass := SecretStore{Kind: SecretAge}, SecretStore{SecretPass, "k3splan/rack"}
	for name, test := range map[string]struct {
		text string
		to   SecretStore
		want string // "" means that it cannot be done
	}{
		"new":                {"# a\nnetmask: 24\n", age, "# a\nnetmask: 24\nsecrets: age\n"},
		"no line end":        {"netmask: 24", age, "netmask: 24\nsecrets: age\n"},
		"Windows":            {"netmask: 24\r\n", age, "netmask: 24\r\nsecrets: age\r\n"},
		"changed":            {"secrets: files # for now\nnetmask: 24\n", age, "secrets: age # for now\nnetmask: 24\n"},
		"empty value":        {"secrets:\nnetmask: 24\n", age, "secrets: age\nnetmask: 24\n"},
		"quoted":             {"\"secrets\": 'files'\n", age, "secrets: age\n"},
		"the same":           {"secrets:   age   # x\n", age, "secrets:   age   # x\n"},
		"both":               {"netmask: 24\n", pass, "netmask: 24\nsecrets: pass\npass_prefix: k3splan/rack\n"},
		"a prefix stays":     {"secrets: pass\npass_prefix: x\n", age, "secrets: age\npass_prefix: x\n"},
		"a prefix changes":   {"pass_prefix: x\nsecrets: pass\n", pass, "pass_prefix: k3splan/rack\nsecrets: pass\n"},
		"empty":              {"", age, "secrets: age\n"},
		"comments alone":     {"# nothing\n", age, "# nothing\nsecrets: age\n"},
		"elsewhere":          {"versions:\n  secrets: x\n", age, "versions:\n  secrets: x\nsecrets: age\n"},
		"in braces":          {"{netmask: 24}\n", age, ""},
		"in braces, there":   {"{netmask: 24, secrets: files}\n", age, ""},
		"over several lines": {"secrets:\n  files\nnetmask: 24\n", age, ""},
		"end of document":    {"netmask: 24\n...\n", age, ""},
		"not YAML":           {"\t", age, ""},
		"of an old Mac":      {"netmask: 24\rsecrets: files\r", age, ""},
		"odd line ends":      {"# a\u2028b\u2028c\nsecrets: files\n", age, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := SetSecretStore([]byte(test.text), test.to)
			if test.want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, string(got))
			again, err := SetSecretStore(got, test.to)
			require.NoError(t, err)
			require.Equal(t, test.want, string(again))
		})
	}
	_, err := SetSecretStore([]byte("{netmask: 24}\n"), age)
	require.ErrorContains(t, err, "secrets: age")
	require.NotContains(t, strings.ToLower(err.Error()), "yaml:")
}
