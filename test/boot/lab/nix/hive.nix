# The system of a host of a rendered hive, and how it is reached and with which secrets, without Colmena.
{ hive, host }:
let
  rendered = import (/. + hive) { };
  options = { lib, ... }: { options.deployment = lib.mkOption { type = lib.types.attrsOf lib.types.anything; }; };
  # the nixpkgs of the hive, in whatever place it is: paths in it are part of the system
  nixpkgs = rendered.meta.nixpkgs.path or ./.;
  system = import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit (rendered.meta) specialArgs;
    system = "x86_64-linux";
    modules = [ options rendered.defaults rendered.${host} { _module.args = { name = host; nodes = { }; }; } ];
  };
  inherit (system.config.system.build) toplevel;
  deployment = {
    inherit (system.config.deployment) targetHost targetPort targetUser;
    keys = map
      (key: {
        keyFile = if key.keyFile == null then "" else toString key.keyFile;
        path = "${key.destDir}/${key.name}";
        inherit (key) permissions user group;
      })
      (builtins.attrValues system.config.deployment.keys);
  };
in
{
  inherit toplevel deployment;
  # both in one evaluation
  all = deployment // { system = toplevel.drvPath; };
}
