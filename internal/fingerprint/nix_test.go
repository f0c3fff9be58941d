package fingerprint

import (
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRefer(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want references
	}{
		"nothing":              {`{ services.nginx.enable = true; }`, references{}},
		"imports":              {`{ imports = [ ./a.nix ../hardware/b.nix sub/c.nix ]; }`, references{paths: []string{"./a.nix", "../hardware/b.nix", "sub/c.nix"}}},
		"comments":             {"# ./a.nix\n/* ./b.nix cluster */ { }", references{}},
		"strings":              {`{ a = "./a.nix cluster ''"; b = '' ./b.nix nodes ''' ''${./x} ''; }`, references{}},
		"in strings":           {`{ a = "x ${./a.sh} y"; b = ''${./b.sh}''; }`, references{paths: []string{"./a.sh", "./b.sh"}}},
		"nested":               {`{ a = "x ${"y ${./a.sh}" + { b = "}"; }.b} ./no"; c = ./c; }`, references{paths: []string{"./a.sh", "./c"}}},
		"escapes":              {`{ a = "\${./no} $${./no} \" ./no"; }`, references{}},
		"dollar signs":         {`{ a = "$$${./a.sh} $$$${./no}"; b = ''$$${./b.sh} $$$$${./c.sh}''; }`, references{paths: []string{"./a.sh", "./b.sh", "./c.sh"}}},
		"folder":               {`import ./.`, references{paths: []string{"./."}}},
		"sum":                  {`{ imports = [ (./. + "/${x}.nix") ]; }`, references{paths: []string{"./."}}},
		"interpolated":         {`{ imports = [ ./${x}.nix ./a/${y} ]; }`, references{computed: true, folders: []string{"./", "./a/"}}},
		"listing":              {`builtins.attrNames (builtins.readDir ./parts)`, references{computed: true, paths: []string{"./parts"}}},
		"computed import":      {`import (dir + "/x.nix")`, references{computed: true}},
		"the plan":             {`{ config, ... }: { x = config.cluster.olaf.ip; }`, references{plan: true}},
		"a word with cluster":  {`{ services.cluster-x.enable = true; subcluster = 1; }`, references{}},
		"the plan by a string": {`{ config, lib, ... }: { x = lib.attrByPath [ "cluster" "olaf" "ip" ] "" config; }`, references{plan: true}},
		"other nodes":          {`{ nodes, ... }: { x = nodes.olaf.config.y; }`, references{plan: true, nodes: true}},
		"nodes by a string":    {`{ nodes, ... }@args: args."nodes".olaf`, references{plan: true, nodes: true}},
		"pins":                 {`{ sources, ... }: { imports = [ (import sources.disko) ]; }`, references{sources: true}},
		"lookup":               {`import <nixpkgs/nixos>`, references{loose: []string{"uses <nixpkgs/nixos>, which is not pinned"}}},
		"comparison":           {`a <b && c> d`, references{}},
		"tarball":              {`builtins.fetchTarball "https://x/y.tar.gz"`, references{loose: []string{"uses fetchTarball without a hash"}}},
		"pinned tarball":       {`builtins.fetchTarball { url = "https://x"; sha256 = "abc"; }`, references{}},
		"branch":               {`builtins.fetchGit { url = "https://x"; ref = "main"; } // { rev = 1; }`, references{loose: []string{"uses fetchGit without a hash"}}},
		"commit":               {`fetchGit { url = "https://x"; rev = "abc"; }`, references{}},
		"environment":          {`builtins.getEnv "HOME"`, references{loose: []string{"uses getEnv, which is different at another time or place"}}},
		"absolute string":      {`builtins.readFile "/etc/motd"`, references{loose: []string{"reads /etc/motd, which is outside of the project"}}},
		"absolute path":        {`builtins.readFile /etc/motd`, references{paths: []string{"/etc/motd"}}},
		"URL without quotes":   {`{ url = https://example.org/x; y = ./y; }`, references{paths: []string{"./y"}}},
		"division and update":  {`{ a = 4 / 2; b = { } // { }; }`, references{}},
		"unterminated":         {`{ a = "`, references{}},
		"unterminated comment": {`{ /* ./x`, references{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := refer(test.text)
			paths := func(r references) references { // and what else the file is made from
				return references{paths: r.paths, folders: r.folders, computed: r.computed, plan: r.plan, nodes: r.nodes, sources: r.sources, loose: r.loose}
			}
			require.Equal(t, test.want, paths(got))
		})
	}
}

// Nothing but a hash or commit that is written out at the fetcher pins what it fetches.
func TestPinnedFetchers(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for _, text := range []string{
		`fetchTarball { url = "x"; sha256 = "abc"; }`,
		`builtins.fetchTarball rec { v = "1"; url = "x/${v}"; sha256 = "abc"; }`,
		`__fetchTarball { sha256 = "abc"; url = "x"; }`,
		`import (builtins.fetchTarball { url = "x"; sha256 = "abc"; }) { }`,
		`let inherit (builtins) fetchTarball; in fetchTarball { url = "x"; sha256 = "abc"; }`,
		`with builtins; fetchurl { url = "x"; sha256 = "abc"; }`,
		`builtins.fetchGit { url = "x"; rev = "` + commit + `"; }`,
		`builtins.fetchMercurial { url = "x"; rev = "` + commit + `"; }`,
		`builtins.fetchTree { type = "git"; url = "x"; rev = "` + commit + `"; }`,
		`builtins.fetchTree { type = "tarball"; url = "x"; narHash = "sha256-x"; }`,
		`builtins.getFlake "github:owner/name/` + commit + `"`,
		`{ pkgs, ... }: pkgs.fetchurl { url = "x"; hash = "sha256-x"; }`,
		`{ pkgs, hash, ... }: pkgs.fetchurl { inherit hash; url = "x"; }`,
		`{ fetchurl, ... }: fetchurl { url = "x"; sha256 = "abc"; }`,
	} {
		require.Empty(t, refer(text).loose, text)
	}
	for _, text := range []string{
		`fetchTarball "https://example.org/` + commit + `.tar.gz"`,
		`fetchTarball https://example.org/x.tar.gz`,
		`fetchTarball ("https://example.org/" + x)`,
		`let rev = "main"; in fetchTarball { url = "x/${rev}"; }`,
		`let sha256 = "abc"; in fetchTarball { inherit sha256; url = "x"; }`,
		`let sha256 = "abc"; in fetchTarball { url = "x"; inherit sha256; }`,
		`let h = "abc"; in fetchTarball { url = "x"; sha256 = h; }`,
		`fetchTarball { url = "x"; sha256 = "abc" + x; }`,
		`fetchTarball { url = "x"; sha256 = "${x}"; }`,
		`fetchTarball { url = "x"; sha256 = ""; }`,
		`fetchTarball { url = "x"; meta = { sha256 = "abc"; }; }`,
		`fetchTarball { url = "x"; meta.sha256 = "abc"; }`,
		"fetchTarball { url = \"x\"; # sha256 = \"abc\";\n }",
		`fetchTarball ({ url = "x"; } // { sha256 = "abc"; })`,
		`fetchTarball args`,
		`let fetch = builtins.fetchTarball; in fetch { url = "x"; sha256 = "abc"; }`,
		`let inherit (builtins) fetchTarball; fetch = fetchTarball; in fetch "x"`,
		`map builtins.fetchTarball [ "x" ]`,
		`__fetchTarball "x"`,
		`builtins."fetchTarball" "x"`,
		`builtins.getAttr "fetchTarball" builtins "x"`,
		`with builtins; fetchurl "x"`,
		`let b = builtins; in b.fetchurl "x"`,
		`let pkgs = builtins; in pkgs.fetchurl "x"`,
		`fetchGit ./.`,
		`fetchGit { url = "x"; ref = "main"; }`,
		`fetchGit { url = "x"; rev = "main"; }`,
		`fetchGit { url = "x"; rev = rev; }`,
		`builtins.fetchMercurial { url = "x"; rev = "abc"; }`,
		`builtins.fetchTree "github:owner/name"`,
		`builtins.fetchTree { type = "github"; owner = "x"; repo = "y"; }`,
		`builtins.getFlake "github:owner/name"`,
		`builtins.getFlake (toString ./.)`,
		`builtins.fetchClosure { fromStore = "x"; fromPath = /nix/store/x; }`,
	} {
		require.NotEmpty(t, refer(text).loose, text)
	}
}

func FuzzRefer(f *testing.F) {
	f.Add(`{ a = "x ${./a.sh} y"; b = ''${./b.sh}''; }`)
	f.Fuzz(func(_ *testing.T, text string) { refer(text) })
}

func TestReadsNames(t *testing.T) {
	for text, reads := range map[string]bool{
		`{ config, ... }: { containers.olaf-s.config.networking.hosts = config.networking.hosts; }`: true,
		`{ config, ... }: with config.networking; { x = hosts; }`:                                   true,
		`args: { x = builtins.toJSON args.config.networking; }`:                                     true,
		`{ config, ... }: { x = config.environment.etc.hosts.text; }`:                               true,
		`{ config, pkgs, ... }: { services.nginx.package = pkgs.nginx; users.x = config.users.y; }`: false,
		`{ networking.firewall.enable = true; }`:                                                    false,
	} {
		w := &walk{used: map[string]bool{}}
		for name := range refer(text).used {
			w.used[name] = true
		}
		require.Equal(t, reads, w.readsNames(), text)
	}
}

// Work is linear in the text, whatever it is: eight times as much takes about eight times as long.
func TestReferIsLinear(t *testing.T) {
	for _, piece := range []string{
		"./x ", "f ./x ./y ", "(./x ", "[ ./x ", "{ a = ./x; ", "readFile ", "inherit a ", "\"${a}\" ", "fetchTarball { ", "path { ", "builtins.${a} ",
		"a = [ \"/..\" ", "(x: \"..\" ", "\"${a}.${b}\" ", "keyFile = x; deployment ", "pkgs.fetchurl { ", "a.b.c.d ", "import sources.nixpkgs { ", "a = b == ./x; ",
	} {
		took := func(n int) time.Duration {
			text := strings.Repeat(piece, n/len(piece))
			best := time.Duration(math.MaxInt64)
			for range 3 {
				start := processorTime(t)
				refer(text)
				best = min(best, processorTime(t)-start)
			}
			return best
		}
		small, large := took(25_000), took(200_000)
		require.Less(t, large, 40*small+300*time.Millisecond, "%q: %s and %s", piece, small, large)
	}
}

// processorTime is this process's, which other processes do not change.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A name that is put together may be that of any built-in function, also where builtins has another name.
func TestBuiltinsByAComputedName(t *testing.T) {
	for _, text := range []string{
		`{ lib, ... }: { x = lib.getAttr ("current" + "Time") builtins; }`,
		`{ lib, ... }: let b = builtins; in { x = lib.getAttr ("current" + "Time") b; }`,
		`{ lib, ... }: let b = builtins; in { x = lib.attrByPath [ ("current" + "Time") ] null b; }`,
		`{ x = builtins.${"current" + "Time"}; }`,
	} {
		require.Equal(t, []string{"uses builtins by a computed name"}, refer(text).loose, text)
	}
	require.Empty(t, refer(`{ lib, ... }: { x = with builtins; lib.mapAttrs (name: toJSON) { }; y = builtins.attrValues { }; }`).loose)
}
