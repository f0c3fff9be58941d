# Evaluates the modules of a host as far as Colmena asks: what deployment.* says is real, and the
# system is the one of the box. What the modules say about NixOS is passed over.
{ system, modules, specialArgs ? { } }:
let
  lib = import ../../lib;
  inherit (lib) mkOption types;
  any = mkOption { type = types.unspecified; default = { }; };
in
lib.evalModules {
  specialArgs = { modulesPath = ../modules; } // specialArgs;
  modules = modules ++ [{
    config._module = {
      check = false;
      args = { pkgs = { inherit system; }; utils = { }; };
    };
    options = {
      # they are about NixOS
      assertions = any // { apply = _: [ ]; };
      warnings = any // { apply = _: [ ]; };
      nixpkgs = any;
      system.build.toplevel = mkOption { type = types.unspecified; };
    };
    config.system.build.toplevel = import (/. + builtins.getEnv "BOX_DATA" + "/system.nix") {
      inherit (specialArgs) name;
      generated = /. + builtins.getEnv "BOX_GENERATED";
    };
  }];
}
