package hive_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/release"
)

// option is a row of testdata/options.tsv.
type option struct {
	path                            []string
	words, first, last, source, how string
}

func nixosOptions(t *testing.T) []option {
	t.Helper()
	text, err := os.ReadFile("testdata/options.tsv")
	require.NoError(t, err)
	var options []option
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, "\t")
		require.Len(t, cells, 6, line)
		require.NotEmpty(t, cells[4], line)
		options = append(options, option{strings.Split(cells[0], "."), cells[1], cells[2], cells[3], cells[4], cells[5]})
	}
	require.True(t, slices.IsSortedFunc(options, func(a, b option) int { return slices.Compare(a.path, b.path) }))
	return options
}

// definition is one that evalhive.sh --defs reports.
type definition struct {
	File, Kind string
	Path       []string
}

// definitionsOfRack are those of the files of the example rack, by host.
func definitionsOfRack(t *testing.T) map[string][]definition {
	t.Helper()
	var definitions map[string][]definition
	evaluated["rack"].of(t).into(t, &definitions, "check", "defs")
	return definitions
}

// takesAnything are types whose values have keys that are not options.
var takesAnything = regexp.MustCompile(`^attribute set|config$|submodule`)

// kinds are the words of types that take the values of a kind.
var kinds = map[string]*regexp.Regexp{
	"bool":   regexp.MustCompile(`boolean`),
	"int":    regexp.MustCompile(`integer|anything|systemd option`),
	"list":   regexp.MustCompile(`list|systemd option`),
	"string": regexp.MustCompile(`string|path|one of|sysctl`),
	"path":   regexp.MustCompile(`string|path`),
}

// unfit returns why a definition does not fit the options of a release, or "".
func unfit(d definition, options []option, nixos string) string {
	name := strings.Join(d.Path, ".")
	for _, o := range options {
		matches := true
		for i, part := range o.path[:min(len(o.path), len(d.Path))] {
			matches = matches && (part == "*" || part == d.Path[i])
		}
		if len(o.path) > len(d.Path) {
			if matches && d.Kind == "set" {
				return "" // an empty set of options
			}
			continue
		}
		whole := len(o.path) == len(d.Path)
		switch words := kinds[d.Kind]; {
		case !matches, !whole && !takesAnything.MatchString(o.words) && !strings.Contains(o.words, "list"):
			continue
		case release.Before(nixos, o.first) || o.last != "" && release.Before(o.last, nixos):
			return fmt.Sprintf("NixOS %s has no option %s", nixos, name)
		case whole && words != nil && !words.MatchString(o.words):
			return fmt.Sprintf("%s is a %s, and NixOS %s takes %s", name, d.Kind, nixos, o.words)
		}
		return ""
	}
	return fmt.Sprintf("the option %s is not in testdata/options.tsv", name)
}

// ofTheSystem are options of the module system itself, and k3splan's and Colmena's own.
var ofTheSystem = []string{"assertions", "warnings", "cluster", "k3splan", "deployment"}

// imageDefinitions are the definitions of olaf's installer image in the form of evalhive.sh --defs.
const imageDefinitions = `let
  trees = import (/. + nixeval + "/shim/sources.nix");
  inherit (iso.olaf) config;
  image = { inherit config; options = config._compat.options; };
in {
  image = import (/. + nixeval + "/definitions.nix") {
    inherit lib;
    rawHive.olaf = /. + dirOf args.hive + "/installer/image.nix";
    nodes.olaf = image;
    foreign = [ (toString <nixpkgs>) trees.nixpkgs trees.disko ];
    modulesPath = trees.nixpkgs + "/nixos/modules";
  } "olaf" image;
}`

// What k3splan's modules define on hosts, in containers and on installer images are options of every release that
// it supports.
func TestOptionsOfReleases(t *testing.T) {
	options := nixosOptions(t)
	require.Greater(t, len(options), 85)
	nodes := definitionsOfRack(t)
	var image map[string][]definition
	evaluated["rack"].of(t).into(t, &image, "image")
	maps.Copy(nodes, image)
	var definitions []definition
	for name, defs := range nodes {
		require.NotEmpty(t, defs, name)
		for _, d := range defs {
			ours := strings.Contains(d.File, "/generated/modules/") || strings.Contains(d.File, "/generated/hosts/") || strings.Contains(d.File, "/generated/installer/")
			if ours && len(d.Path) > 0 && !slices.Contains(ofTheSystem, d.Path[0]) {
				definitions = append(definitions, d)
			}
		}
	}
	require.Greater(t, len(definitions), 100)
	for _, r := range release.All() {
		t.Run(r.Name, func(t *testing.T) {
			wrong := map[string]bool{}
			for _, d := range definitions {
				if why := unfit(d, options, r.Name); why != "" {
					wrong[why] = true
				}
			}
			require.Empty(t, wrong)
			switch {
			case r.Released.IsZero():
				t.Skipf("SKIP: the options of NixOS %s as it will be released: only nixpkgs of August 2026 was read", r.Name)
			case r.Name != release.Oldest().Name:
				t.Logf("NixOS %s: by the ends of the table, 24.11 and 26.11pre; its own tree was not read", r.Name)
			}
		})
	}
}

// The check finds what it is for.
func TestOptionsThatDoNotFit(t *testing.T) {
	options := append(nixosOptions(t), option{path: []string{"services", "gone", "enable"}, words: "boolean", first: "24.11", last: "25.05"})
	for _, test := range []struct{ kind, path, nixos, want string }{
		{"bool", "services.k3s.enable", "26.05", ""},
		{"string", "systemd.services.x.serviceConfig.Type", "26.05", ""},
		{"set", "networking.interfaces.eno1", "26.05", ""},
		{"set", "networking.interfacse.eno1", "26.05", "the option networking.interfacse.eno1 is not in testdata/options.tsv"},
		{"string", "services.k3s.enabel", "26.05", "the option services.k3s.enabel is not in testdata/options.tsv"},
		{"string", "services.k3s.enable", "26.05", "services.k3s.enable is a string, and NixOS 26.05 takes boolean"},
		{"bool", "services.gone.enable", "25.05", ""},
		{"bool", "services.gone.enable", "25.11", "NixOS 25.11 has no option services.gone.enable"},
	} {
		require.Equal(t, test.want, unfit(definition{Kind: test.kind, Path: strings.Split(test.path, ".")}, options, test.nixos))
	}
}
