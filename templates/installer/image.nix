# The system on the stick: the host's network and people, the tools that people expect, and the service that
# installs the host. It contains no secret: those are in the stick's own partition, beside the image.
{ config, lib, options, pkgs, modulesPath, ... }:
let
  inherit (lib) mkDefault mkForce mkOption types;
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  inherit (cfg.installer) installed;
in
{
  imports = [
    (modulesPath + "/installer/cd-dvd/installation-cd-minimal.nix")
    ../modules/data.nix
    ../modules/ssh.nix
    ./network.nix
    ./service.nix
  ];

  options.k3splan.installer = {
    installed = mkOption {
      description = "The host's NixOS system, evaluated.";
      type = types.raw;
    };
    joining = mkOption {
      description = "The same as a host that joins the cluster of another host, whose name is the argument.";
      type = types.raw;
    };
    netinstall = mkOption {
      description = "Whether the image contains how the system is made instead of the system itself.";
      type = types.bool;
    };
  };

  config = {
    time.timeZone = cfg.network.timezone;

    # whoever administers the host may watch its installation
    users.users.${host.admin.name} = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
      openssh.authorizedKeys.keys = installed.config.k3splan.adminKeys;
    };
    # images of some releases do not start it by themselves
    systemd.services.sshd.wantedBy = mkForce [ "multi-user.target" ];

    environment.systemPackages = with pkgs; [ curl diffutils dnsutils dosfstools e2fsprogs gawk git gptfdisk jq parted util-linux vim ]
      # older releases have none; a host with a layout brings its own scripts of disko
      ++ lib.optional (pkgs ? disko) pkgs.disko;

    # else all of nixpkgs is copied to the image
    system.installer.channel.enable = false;
    system.stateVersion = mkForce installed.config.system.stateVersion;

    # what the host's file systems need of the kernel
    boot.supportedFilesystems = lib.mkMerge installed.options.boot.supportedFilesystems.definitions;

    isoImage = {
      # at most 32 characters; k3splan recognizes by it whose image a file is
      volumeID = mkForce "k3splan-${lib.substring 0 24 cfg.host}";
    } // lib.optionalAttrs (options.isoImage ? squashfsCompression) {
      # a person waits for it: NixOS's level 19 takes many minutes for a few percent
      squashfsCompression = mkDefault "zstd -Xcompression-level 6";
    };
  };
}
