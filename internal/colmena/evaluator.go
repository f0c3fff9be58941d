package colmena

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k3splan/internal/files"
	"k3splan/internal/run"
)

// Evaluator is the Nix code by which a Colmena evaluates hives. Colmena contains it and writes it to a temporary
// folder whenever it runs Nix, so that it can be asked for it: k3splan has no copy that could differ.
type Evaluator struct {
	// Files are the contents by their names: eval.nix, options.nix, modules.nix.
	Files map[string]string `json:"files"`
	// Nix describes the Nix that Colmena runs: its version, its platform and where its store is.
	Nix []string `json:"nix"`
}

// show has Colmena print its own code. The attributes that Colmena calls the expression with know the file that they
// are written in.
const show = `with builtins; arguments:
  let folder = dirOf (unsafeGetAttrPos "nodes" arguments).file;
  in {
    files = listToAttrs (map (name: { inherit name; value = readFile (folder + "/${name}"); }) [ "eval.nix" "options.nix" "modules.nix" ]);
    nix = [ nixVersion currentSystem storeDir ];
  }`

// ShowEvaluator returns the evaluator of a Colmena. sources is a rendered sources.nix, whose nixpkgs has the library
// that Colmena needs for any answer.
func ShowEvaluator(ctx context.Context, program, sources string) (*Evaluator, error) {
	empty, err := ResolvedHive(sources, nil, nil)
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	var e Evaluator
	if err := empty.ask(ctx, program, show, &e); err != nil {
		return nil, fmt.Errorf("asking Colmena how it evaluates: %w", err)
	}
	if len(e.Files) == 0 {
		return nil, fmt.Errorf("asking Colmena how it evaluates: the answer has no files")
	}
	return &e, nil
}

// Digest identifies everything in e, in hexadecimal digits.
func (e *Evaluator) Digest() string {
	data, err := json.Marshal(e) // maps are sorted
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Write writes the files of e into a folder.
func (e *Evaluator) Write(folder string) error {
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(e.Files[name]), 0o600); err != nil {
			return fmt.Errorf("writing Colmena's evaluator: %w", err)
		}
	}
	return nil
}

// ask has Colmena evaluate a function of a hive, and decodes the answer.
func (h *Hive) ask(ctx context.Context, program, expression string, answer any) error {
	out, err := run.Output(ctx, run.Command{Program: program, Args: []string{"eval", "-f", h.File, "-E", expression}, Env: h.Env})
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// Resolved is what Colmena has to know of a host that was evaluated before.
type Resolved struct {
	// Derivation and System are the store paths of the host's system: how it is made, and what is made.
	Derivation string `json:"drvPath"`
	System     string `json:"outPath"`
	// Deployment are the values of the options deployment.*.
	Deployment map[string]json.RawMessage `json:"deployment"`
}

// A resolved hive is one whose nixpkgs is a stub: its NixOS knows the result of each host.
const (
	resolvedHive = `# The hosts of a hive as they were evaluated before. Made by k3splan for one run.
let
  hosts = builtins.fromJSON (builtins.readFile ./hosts.json);
  sources = import (/. + builtins.readFile ./sources);
in
{
  meta.nixpkgs = {
    lib = import (sources.nixpkgs + "/lib");
    path = ./.;
    system = "resolved";
    overlays = [ ];
    config = { };
  };
}
// builtins.mapAttrs (_: _: { }) hosts
`
	resolvedConfig = `{ specialArgs, ... }:
let host = (builtins.fromJSON (builtins.readFile ../../hosts.json)).${specialArgs.name}; in
{
  config = {
    inherit (host) deployment;
    system.build.toplevel = {
      type = "derivation";
      name = "nixos-system-${specialArgs.name}";
      system = "resolved";
      outputName = "out";
      inherit (host) drvPath outPath;
    };
  };
}
`
)

// ResolvedHive returns a hive of hosts that were evaluated before: Colmena evaluates nothing of theirs again. sources
// is a rendered sources.nix; users are login names by host that replace the hive's. Close removes it.
func ResolvedHive(sources string, hosts map[string]Resolved, users map[string]string) (*Hive, error) {
	sources, err := filepath.Abs(sources)
	if err != nil {
		return nil, fmt.Errorf("finding sources.nix: %w", err)
	}
	known := make(map[string]Resolved, len(hosts))
	for name, host := range hosts {
		if user := users[name]; user != "" {
			quoted, err := json.Marshal(user)
			if err != nil {
				return nil, err
			}
			host.Deployment = maps.Clone(host.Deployment)
			host.Deployment["targetUser"] = quoted
		}
		known[name] = host
	}
	data, err := json.Marshal(known)
	if err != nil {
		return nil, err
	}
	temp, err := files.TempDir(pathLiteral.MatchString)
	if err != nil {
		return nil, err
	}
	return newHive(temp, map[string]string{
		"hive.nix": resolvedHive, "hosts.json": string(data), "sources": sources, "nixos/lib/eval-config.nix": resolvedConfig,
	})
}

// resolutions has Colmena print the derivations of a resolved hive.
const resolutions = `{ nodes, ... }: builtins.mapAttrs (_: node: node.config.system.build.toplevel.drvPath) nodes`

// Accepts returns an error if a Colmena does not read a resolved hive as it is meant.
func Accepts(ctx context.Context, program string, hive *Hive, hosts map[string]Resolved) error {
	var found map[string]string
	if err := hive.ask(ctx, program, resolutions, &found); err != nil {
		return err
	}
	for name, host := range hosts {
		if found[name] != host.Derivation {
			return fmt.Errorf("Colmena takes %s for the system of %s, which is %s", strings.TrimSpace(found[name]), name, host.Derivation)
		}
	}
	return nil
}
