# What a host's own file (../hosts/NAME.nix) says. It names files and keys; what the plan says about
# the host stands in the plan alone (cluster.nix).
{ lib, ... }:
let
  inherit (lib) mkOption types;

  keys = mkOption {
    type = types.listOf types.singleLineStr;
    default = [ ];
  };

  secret = types.submodule {
    options = {
      keyFile = mkOption {
        description = "The file that holds the secret, on the machine that deploys. Never to be put into a string: that copies it to the store.";
        type = types.nullOr types.path;
        default = null;
      };
      entry = mkOption {
        description = "The name under which `k3splan secrets show` prints the secret, which is kept encrypted.";
        type = types.nullOr types.str;
        default = null;
      };
      keyCommand = mkOption {
        description = "A command that prints the secret, run on the machine that deploys.";
        type = types.nullOr (types.listOf types.str);
        default = null;
      };
    };
  };
in
{
  options.k3splan = {
    adminKeys = keys // { description = "Public ssh keys of the administrator."; };
    deployKeys = keys // { description = "Public ssh keys that may deploy to the host."; };

    secrets = mkOption {
      description = "Where each secret comes from: `passwd`, `server-token`, `agent-token`, `ssh-host-key`.";
      type = types.attrsOf secret;
      default = { };
    };

    serverImports = mkOption {
      description = "Additional NixOS modules for the host's server container.";
      type = types.listOf types.path;
      default = [ ];
    };

    labelledFileSystems = mkOption {
      description = "Whether `/` (and `/boot`) are the file systems labelled `nixos` and `boot`, as the installer makes them.";
      type = types.bool;
      default = false;
    };
  };
}
