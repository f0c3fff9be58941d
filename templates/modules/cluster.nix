# The plan as options: `cluster.HOST.KEY`, own columns included, `k3splan.network` for what
# concerns all hosts, and `k3splan.host`, the name of the host that is being evaluated. Imported by
# hosts, by their server containers and by installer images, through data.nix, which sets them.
#
# Nix evaluates a value only when it is used, so a host depends only on the data that its configuration
# really uses.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  text = mkOption { type = types.str; };
  maybeText = mkOption { type = types.nullOr types.str; default = null; };
  texts = mkOption { type = types.listOf types.str; default = [ ]; };

  # A column of the user's own is a string. A module can declare an option of another type
  # for it, which is merged with these:
  #   options.cluster = mkOption { type = attrsOf (submodule { options.rack = mkOption { … }; }); };
  withOwnColumns = options: types.submodule {
    freeformType = types.attrsOf types.str;
    inherit options;
  };

  container = mkOption {
    default = null;
    type = types.nullOr (withOwnColumns {
      name = text;
      ip = text;
      type = mkOption { type = types.enum [ "init" "server" "agent" ]; };
      mac = maybeText;
      labels = mkOption { type = types.attrsOf types.str; default = { }; };
      taints = texts;
    });
  };

  host = withOwnColumns {
    name = text;
    interface = text;
    ip = maybeText; # null with DHCP
    target = {
      host = maybeText; # null where the host deploys to itself
      port = mkOption { type = types.nullOr types.port; default = null; };
      local = mkOption { type = types.bool; default = false; };
    };
    admin.name = text;
    serial = maybeText;
    boot = mkOption { type = types.enum [ "efi" "legacy" ]; };
    system = text;
    tags = texts;
    mac = maybeText;
    state_version = text;
    # the defaults of machine.nix
    role = mkOption { type = types.str; default = ""; };
    groups = texts;
    reboot_order = mkOption { type = types.int; default = 100; };
    depends_on = texts;
    strategy = mkOption { type = types.str; default = "rolling"; };
    reboot_delay = mkOption { type = types.int; default = 600; };
    criticality = mkOption { type = types.str; default = "medium"; };
    checks = mkOption { type = types.listOf (types.attrsOf types.unspecified); default = [ ]; };
    k3s = {
      server = container;
      agent = container;
    };
  };

  network = types.submodule {
    options = {
      netmask = mkOption { type = types.ints.between 0 32; };
      gateway = text;
      nameservers = texts;
      domain = maybeText;
      timezone = maybeText;
      pod_cidr = text;
      service_cidr = text;
      tls_san = texts;
      versions = {
        nixos = text;
        k3s = maybeText;
        disko = maybeText;
        state = maybeText;
        permit_ended = maybeText; # a minor version of k3s
      };
      init_server = maybeText; # the host of the init server
    };
  };
in
{
  options = {
    cluster = mkOption {
      description = "The hosts of the plan, by name.";
      type = types.attrsOf host;
    };
    k3splan = {
      host = mkOption {
        description = "The name of this host in the plan; in a server container, that of its host.";
        type = types.str;
      };
      network = mkOption {
        description = "The network and the versions of the plan.";
        type = network;
      };
    };
  };
}
