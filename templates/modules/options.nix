# The options that a host's own file (../hosts/NAME.nix) sets. It names files and keys; what the plan
# contains about the host is in the plan alone (cluster.nix).
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
        description = "The file that holds the secret, on the machine that deploys. Never interpolate it into a string: Nix would copy it to the store.";
        type = types.nullOr types.path;
        default = null;
      };
      entry = mkOption {
        description = "The name by which `k3splan secrets show` prints the secret, which is stored encrypted.";
        type = types.nullOr types.str;
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

    k3s = {
      package = mkOption {
        description = "The k3s package of servers.";
        type = types.package;
        readOnly = true;
      };
      image = mkOption {
        description = "The k3s image of agents.";
        type = types.str;
        readOnly = true;
      };
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
