# What makes a virtual machine of a host: its interfaces on the test's LAN, under the names of the plan; the
# machine's own disk and boot; the secrets that were made for this rehearsal.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) concatMap escapeShellArg genAttrs hasPrefix mapAttrsToList mkForce mkIf mkMerge mkVMOverride unique;
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  inherit (host.k3s) agent server;
  rehearsal = builtins.fromJSON (builtins.readFile ../rehearsal.json);
  known = lib.findFirst (other: other.name == host.name) null rehearsal.plan.hosts;

  # what a bond, a bridge or a VLAN is made of
  physical = name:
    let inherit (config.networking) bonds bridges vlans; in
    if bonds ? ${name} then concatMap physical bonds.${name}.interfaces
    else if bridges ? ${name} then concatMap physical bridges.${name}.interfaces
    else if vlans ? ${name} then physical vlans.${name}.interface
    else [ name ];

  image = import ./agent-image.nix { inherit lib pkgs; inherit (config.k3splan.k3s) image package; };

  # Of other secrets only the places are known. That of the real one is never read.
  isOwn = name: hasPrefix "k3splan-" name;
  contentOf = name: key:
    if isOwn name then builtins.path { name = "rehearsal-${name}"; path = /. + key.keyFile; }
    else pkgs.writeText "rehearsal-secret" "rehearsal";
  place = name: key: ''
    mkdir -p ${escapeShellArg key.destDir}
    install -m ${escapeShellArg key.permissions} ${contentOf name key} ${escapeShellArg key.path}
  '';

  testKey = ../../secrets/rehearsal;
in
{
  config = mkMerge [
    {
      virtualisation = {
        # the test renames the interfaces by their MAC addresses
        vlans = mkForce [ ];
        interfaces = genAttrs (unique (physical host.interface)) (_: { vlan = 1; assignIP = false; });
        cores = 2;
        # in MiB
        inherit (known) memorySize;
        diskSize = 16 * 1024;
      };

      # a host without an address in the plan has none that the others could reach it by
      networking.interfaces.${host.interface} = mkIf (host.ip == null) {
        useDHCP = mkForce false;
        ipv4.addresses = mkForce [{ address = known.ip; prefixLength = network.netmask; }];
      };

      # the VM's kernel is started directly
      boot.loader = {
        systemd-boot.enable = mkVMOverride false;
        efi.canTouchEfiVariables = mkVMOverride false;
        grub.enable = mkVMOverride false;
      };

      # Colmena would have uploaded them before the first activation.
      system.activationScripts = {
        k3splan-rehearsal = {
          text = lib.concatStrings (mapAttrsToList place config.deployment.keys);
          deps = [ ];
        };
        users.deps = [ "k3splan-rehearsal" ];
      };

      # by which the hosts log in to each other
      environment.etc."k3splan-rehearsal/key" = {
        source = builtins.path { name = "rehearsal-key"; path = testKey; };
        mode = "0400";
      };
    }
    (mkIf (agent != null) {
      virtualisation.oci-containers.containers.${agent.name} = {
        imageFile = image.file;
        volumes = image.volumes;
      };
    })
    (lib.optionalAttrs (options ? disko) {
      disko.devices = mkForce { };
      disko.enableConfig = mkForce false;
    })
    # tests of some releases leave out what is needed to activate another system
    (lib.optionalAttrs (options.system ? switch) { system.switch.enable = mkForce true; })
  ];
}
