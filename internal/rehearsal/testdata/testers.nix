# runNixOSTest for the evaluation harness, whose modules are older than that function: the same options of a
# test, and of its nodes; the nodes with the harness's own modules for virtual machines. What the test would be
# built from is evaluated; nothing is built.
{ sources }:
let
  lib = import (sources.nixpkgs + "/lib");
  pkgs = import sources.nixpkgs { system = "x86_64-linux"; };
  inherit (lib) mkOption types;
  option = type: mkOption { inherit type; };
  optionOr = type: default: mkOption { inherit type default; };

  # what newer modules for virtual machines have, and do, apart from what the harness declares
  newer = { config, ... }: {
    options.virtualisation = {
      test.nodeNumber = option types.int;
      renamed = optionOr (types.listOf types.str) [ ];
    };
    config = {
      boot.initrd.extraUdevRulesCommands = lib.concatMapStrings (line: line + "\n") config.virtualisation.renamed;
      virtualisation.renamed = lib.mapAttrsToList
        (name: interface: ''SUBSYSTEM=="net",ACTION=="add",ATTR{address}=="52:54:00:12:0${toString interface.vlan}:0${toString config.virtualisation.test.nodeNumber}",NAME="${name}"'')
        config.virtualisation.interfaces;
      networking.extraHosts = "";
    };
  };

  # The harness declares options of newer releases; those of its own modules for virtual machines win.
  isOption = value: value._type or "" == "option";
  without = theirs: options: lib.filterAttrs (_: value: value != null) (lib.mapAttrs
    (name: value:
      if !(theirs ? ${name}) then value
      else if isOption value || isOption theirs.${name} then null
      else without theirs.${name} value)
    options);
  declared = sources.nixpkgs + "/compat/remaining-options.nix";
  remaining = { config, lib, pkgs, options, modulesPath, ... }@args: {
    disabledModules = [ declared ];
    options = without (import (modulesPath + "/virtualisation/qemu-vm.nix") args).options (import declared args).options;
  };

  evaluated = module: (lib.evalModules {
    modules = [
      module
      ({ config, ... }: {
        options = {
          name = option types.str;
          nodes = option (types.attrsOf types.deferredModule);
          node.specialArgs = optionOr (types.attrsOf types.raw) { };
          node.pkgsReadOnly = optionOr types.bool true;
          globalTimeout = optionOr types.int 3600;
          testScript = option types.str;
          made = option types.raw;
        };
        config.made = lib.listToAttrs (lib.imap1
          (number: name: lib.nameValuePair name (import (sources.nixpkgs + "/nixos/lib/eval-config.nix") {
            system = "x86_64-linux";
            specialArgs = { inherit name; nodes = lib.mapAttrs (_: node: node.config // { inherit (node) config; }) config.made; } // config.node.specialArgs;
            modules = [
              config.nodes.${name}
              newer
              ({ modulesPath, ... }: {
                imports = [ remaining (modulesPath + "/virtualisation/qemu-vm.nix") (modulesPath + "/testing/test-instrumentation.nix") ];
                virtualisation.test.nodeNumber = number;
                documentation.nixos.enable = false;
              })
            ];
          }))
          (lib.attrNames config.nodes));
      })
    ];
  }).config;
in
pkgs // {
  testers.runNixOSTest = module:
    let test = evaluated module; in
    pkgs.runCommand "vm-test-run-${test.name}"
      {
        inherit (test) testScript;
        vms = map (node: node.config.system.build.vm) (lib.attrValues test.made);
        passthru = { inherit (test) globalTimeout testScript; nodes = lib.mapAttrs (_: node: node.config) test.made; };
      } "exit 1";
}
