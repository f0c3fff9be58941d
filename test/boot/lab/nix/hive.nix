# The system of a host of a rendered hive, and the secrets that are uploaded to it, without Colmena.
{ hive, host }:
let
  tree = toString ./.;
  rendered = import (/. + hive) { };
  deployment = { lib, ... }: { options.deployment = lib.mkOption { type = lib.types.attrsOf lib.types.anything; }; };
  system = import ./nixos/lib/eval-config.nix {
    inherit (rendered.meta) specialArgs;
    system = "x86_64-linux";
    modules = [ deployment rendered.defaults rendered.${host} { _module.args = { name = host; nodes = { }; }; } ];
  };
in
{
  inherit (system.config.system.build) toplevel;
  secrets = map
    (key: { keyFile = if key.keyFile == null then "" else toString key.keyFile; path = "${key.destDir}/${key.name}"; inherit (key) permissions; })
    (builtins.attrValues system.config.deployment.keys);
}
