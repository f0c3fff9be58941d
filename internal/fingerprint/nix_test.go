package fingerprint

import (
	"testing"

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
		"interpolated":         {`{ imports = [ ./${x}.nix ./a/${y} ]; }`, references{computed: true}},
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
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, refer(test.text)) })
	}
}

func FuzzRefer(f *testing.F) {
	f.Add(`{ a = "x ${./a.sh} y"; b = ''${./b.sh}''; }`)
	f.Fuzz(func(_ *testing.T, text string) { refer(text) })
}
