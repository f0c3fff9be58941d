# The boot loader. All are defaults, so that a snippet or a disko layout can override them.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf;
  isEFI = config.cluster.${config.k3splan.host}.boot == "efi";
in
{
  boot.loader = {
    systemd-boot.enable = mkIf isEFI (mkDefault true);
    efi.canTouchEfiVariables = mkIf isEFI (mkDefault true);

    # This writes GRUB's menu. The installer puts GRUB itself on the disk, which only it can identify.
    grub = mkIf (!isEFI) {
      enable = mkDefault true;
      # NixOS derives `devices` from it; a default there would lose against its empty list
      device = mkDefault "nodev";
    };
  };
}
