# The boot loader. Defaults all, so that a snippet or a disko layout can say otherwise.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf;
  isEFI = config.cluster.${config.k3splan.host}.boot == "efi";
in
{
  boot.loader = {
    systemd-boot.enable = mkIf isEFI (mkDefault true);
    efi.canTouchEfiVariables = mkIf isEFI (mkDefault true);

    # GRUB's menu is written here; GRUB itself is put on the disk by the installer, which knows it.
    grub = mkIf (!isEFI) {
      enable = mkDefault true;
      # NixOS makes `devices` of it, where a default would lose against its empty list
      device = mkDefault "nodev";
    };
  };
}
