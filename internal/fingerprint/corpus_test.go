package fingerprint

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/files"
)

// snippet is one of testdata/snippets.txt.
type snippet struct {
	name, code string
	// loose is whether it counts as changed always.
	loose bool
	// dir is its project.
	dir string
}

// snippetFiles are what the snippets read.
var snippetFiles = map[string]string{
	"parts/a.nix":                "{ a = 1; }",
	"parts/b.nix":                "{ b = import ../other/leaf.nix; }",
	"parts/default.nix":          "{ c = import ./a.nix; }",
	"parts/motd":                 "parts",
	"parts/motd-ulf":             "parts of ulf",
	"other/common":               "{ imports = [ ../parts/a.nix ]; }",
	"other/leaf.nix":             "1",
	"other/list":                 "[ ../parts/a.nix ../parts/b.nix ]",
	"other/deep/linked.nix":      "{ imports = [ ./near.nix ]; }",
	"other/deep/near.nix":        "{ near = true; }",
	"plain/a":                    "a",
	"plain/b":                    "b",
	"files/motd":                 "hello",
	"files/motd-ulf":             "hello, ulf",
	"files/word":                 "motd",
	"files/data.json":            `{"file": "../files/motd", "x": ["/etc/passwd", "<nixpkgs>"]}`,
	"files/data.toml":            "path = '/etc/x'\n",
	"files/plain.json":           `{"x": "a.b", "url": "https://example.org/x", "size": 1.5}`,
	"leads/lead.json":            `{"out": "OUTSIDE/motd", "up": "../../outside/motd"}`,
	"leads/lead.toml":            "out = 'OUTSIDE/motd'\n",
	"leads/dots.json":            `{"dot": ".", "up": "\u002e\u002e/\u002e./outside/motd"}`,
	"files/script.sh":            "#!/bin/sh\n# <x> ../../y\n. /etc/profile; import ~/x; cat <nixpkgs>\n",
	"files-ulf/x":                "x",
	"links/x":                    "x",
	"outlinks/x":                 "x",
	"lib/default.nix":            "{ readIn = folder: name: builtins.readFile (folder + \"/${name}\"); suffix = file: builtins.readFile (file + \"-ulf\"); dir = ../files; }",
	"lib/base.nix":               "../files/motd",
	"lib/func.nix":               "{ base }: builtins.readFile (base + \"/motd\")",
	"lib/read.nix":               "file: builtins.readFile file",
	"lib/suffix.nix":             "file: builtins.readFile (file + \"-ulf\")",
	"lib/attr.nix":               "{ base }: builtins.readFile (base + \"-ulf\")",
	"lib/module.nix":             "{ file }: { lib, ... }: { text = lib.fileContents file; }",
	"lib/package.nix":            "{ lib, ... }: { src = ../files/motd; }",
	"lib/overlay.nix":            "final: prev: { x = ../files/motd; }",
	"lib/home.nix":               "{ home.file.x.source = ../files/motd; }",
	"nixConfigs/shared.nix":      "{ shared = ../files/word; }",
	"nixConfigs/mod/default.nix": "{ x = import ./x.nix; }",
	"nixConfigs/mod/x.nix":       "{ y = 1; }",
	"secrets/git.pub":            key,
	"secrets/token":              "token",
	"plans/hosts.csv":            "name\n",
	"generated/cluster.json":     "{}",
	".git/HEAD":                  "x",
}

// readSnippets makes a project for each snippet below dir, beside a folder that belongs to none.
func readSnippets(t *testing.T, dir string) (all []snippet) {
	t.Helper()
	text, err := os.ReadFile("testdata/snippets.txt")
	require.NoError(t, err)
	outside := filepath.Join(dir, "outside")
	for name, content := range map[string]string{
		"outside/motd": "outside", "outside/x.nix": "{ }", "nixpkgs/default.nix": "arguments: { }", "nixpkgs/disko/default.nix": "{ }",
		"nixpkgs/disko/module.nix": "{ }", "nixpkgs/nixos/modules/x.nix": "{ }", "nixpkgs/nixos/modules/profiles/minimal.nix": "{ }",
		"nixpkgs/nixos/modules/installer/scan/not-detected.nix": "{ }",
	} {
		write(t, dir, name, content)
	}
	for name, content := range snippetFiles {
		write(t, filepath.Join(dir, "all"), name, strings.ReplaceAll(content, "OUTSIDE", outside))
	}
	for line := range strings.Lines(string(text)) {
		name, code, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " | ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		s := snippet{code: strings.ReplaceAll(code, "OUTSIDE", outside), dir: filepath.Join(dir, fmt.Sprintf("%03d", len(all)))}
		s.name, s.loose = strings.CutPrefix(name, "! ")
		for name := range snippetFiles {
			copied := filepath.Join(s.dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(copied), 0o700))
			require.NoError(t, os.Link(filepath.Join(dir, "all", name), copied))
		}
		write(t, s.dir, "nixConfigs/ulf.nix", s.code)
		require.NoError(t, os.Mkdir(filepath.Join(s.dir, "files/empty"), 0o700))
		for link, target := range map[string]string{
			"files/link": "word", "files/out": outside + "/motd", "nixConfigs/linked.nix": "../other/deep/linked.nix",
			"links/in": "../files/motd", "outlinks/out": outside,
		} {
			if strings.HasPrefix(target, "/") && !strings.Contains(s.name, "by a link") {
				continue // not among all files of a project
			}
			require.NoError(t, os.Symlink(target, filepath.Join(s.dir, link)))
		}
		all = append(all, s)
	}
	return all
}

// inputs returns what the snippet's host is made from, and the folders that are taken as a whole.
func (s snippet) inputs(t *testing.T) (Inputs, map[string]bool) {
	t.Helper()
	in := Inputs{Files: map[string]string{}}
	w := &walk{
		collector: &collector{fsys: files.In(s.dir), root: s.dir, files: map[string]*file{}},
		in:        &in, seen: map[string]bool{}, bound: map[string][]string{}, used: map[string]bool{}, climbed: map[string]int{}, explicit: map[string]int{},
	}
	require.NoError(t, w.all([]string{"nixConfigs/ulf.nix"}))
	return in, w.seen
}

// What Nix reads for a snippet is among what its fingerprint has.
func TestNixReadsNothingElse(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate", "strace")
	dir, err := filepath.EvalSymlinks(nixtest.TempDir(t))
	require.NoError(t, err)
	snippets := readSnippets(t, dir)
	require.Greater(t, len(snippets), 200)
	var list strings.Builder
	for _, s := range snippets {
		fmt.Fprintf(&list, "%s/nixConfigs/ulf.nix ", s.dir)
	}
	force, err := filepath.Abs("testdata/force.nix")
	require.NoError(t, err)
	trace := filepath.Join(dir, "trace")
	command := exec.Command("strace", "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,readlink,readlinkat", "-o", trace,
		"nix-instantiate", "--eval", "--strict", "-E", fmt.Sprintf("import %s { snippets = [ %s]; nixpkgs = %s/nixpkgs; }", force, list.String(), dir))
	command.Env = append(os.Environ(), "NIX_PATH=nixpkgs="+dir+"/nixpkgs")
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)

	reads := map[string][]string{}
	text, err := os.ReadFile(trace)
	require.NoError(t, err)
	for _, match := range traced.FindAllStringSubmatch(string(text), -1) {
		if below, ok := strings.CutPrefix(match[1], dir+"/"); ok {
			project, name, _ := strings.Cut(below, "/")
			reads[project] = append(reads[project], name)
		}
	}
	require.NotEmpty(t, reads["outside"], "of what is outside of all projects")
	found := 0
	for _, s := range snippets {
		in, folders := s.inputs(t)
		if s.loose {
			assert.NotEmpty(t, in.Loose, "%s must count as changed always: %s", s.name, s.code)
			continue
		}
		assert.Empty(t, in.Loose, "%s: %s", s.name, s.code)
		read := reads[filepath.Base(s.dir)]
		require.NotEmpty(t, read, s.name)
		for _, name := range read {
			_, isFile := in.Files[name]
			assert.True(t, isFile || folders[name+"/"] || inFolder(folders, name), "%s: Nix reads %s, the fingerprint has %v\n%s",
				s.name, name, slices.Sorted(maps.Keys(in.Files)), s.code)
			found++
		}
		// and makes another fingerprint when it changes
		if slices.Contains(read, "files/motd") {
			require.NoError(t, os.Remove(filepath.Join(s.dir, "files/motd")))
			write(t, s.dir, "files/motd", "other")
			after, _ := s.inputs(t)
			assert.NotEqual(t, in.Fingerprint(), after.Fingerprint(), s.name)
		}
	}
	require.Greater(t, found, 300)
}

// inFolder reports whether a folder is below one that is taken as a whole.
func inFolder(folders map[string]bool, name string) bool {
	for name != "." {
		name = filepath.Dir(name)
		if folders[name+"/"] {
			return true
		}
	}
	return false
}

// traced finds in strace's lines what was opened or read as a link.
var traced = regexp.MustCompile(`(?m)(?:open|readlink)(?:at)?\((?:AT_FDCWD, )?"([^"]+)".* = [0-9]+`)
