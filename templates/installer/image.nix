# The system on the stick: the host's address and people, the tools that people expect, and the
# service that installs the host. No secret is in it: those lie beside it, on the stick's own partition.
{ config, lib, pkgs, modulesPath, ... }:
let
  inherit (lib) mkForce mkOption types;
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  inherit (cfg.installer) installed;
in
{
  imports = [
    (modulesPath + "/installer/cd-dvd/installation-cd-minimal.nix")
    ../modules/cluster.nix
    ../modules/network.nix
    ../modules/ssh.nix
    ./service.nix
  ];

  options.k3splan.installer = {
    installed = mkOption {
      description = "The host's NixOS system, evaluated.";
      type = types.raw;
    };
    joining = mkOption {
      description = "The same as a host that joins the cluster of another host, which is named.";
      type = types.raw;
    };
    netinstall = mkOption {
      description = "Whether the image carries how the system is made instead of the system itself.";
      type = types.bool;
    };
  };

  config = {
    networking = {
      inherit (cfg.network) domain nameservers;
    };
    time.timeZone = cfg.network.timezone;

    # whoever may administer the host may look what happens on it meanwhile
    users.users.${host.admin.name} = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
      openssh.authorizedKeys.keys = installed.config.k3splan.adminKeys;
    };
    # images of some releases start it by hand only
    systemd.services.sshd.wantedBy = mkForce [ "multi-user.target" ];

    environment.systemPackages = with pkgs; [ curl diffutils dnsutils dosfstools e2fsprogs gawk git gptfdisk jq parted util-linux vim ]
      # older releases have none; a host with a layout brings disko's scripts of its own
      ++ lib.optional (pkgs ? disko) pkgs.disko;

    # or all of nixpkgs is copied to it
    system.installer.channel.enable = false;
    system.stateVersion = mkForce installed.config.system.stateVersion;

    # at most 32 characters; k3splan tells by it whose image a file is
    isoImage.volumeID = mkForce "k3splan-${lib.substring 0 24 cfg.host}";
  };
}
