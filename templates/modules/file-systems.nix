# The file systems that the installer makes, if neither a disko layout nor a hardware configuration
# defines them.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf;
  cfg = config.k3splan;
  isEFI = config.cluster.${cfg.host}.boot == "efi";
in
{
  fileSystems = mkIf cfg.labelledFileSystems {
    "/" = {
      device = mkDefault "/dev/disk/by-label/nixos";
      fsType = mkDefault "ext4";
    };
    "/boot" = mkIf isEFI {
      device = mkDefault "/dev/disk/by-label/boot";
      fsType = mkDefault "vfat";
      # holds the boot loader's random seed
      options = mkDefault [ "fmask=0077" "dmask=0077" ];
    };
  };
}
