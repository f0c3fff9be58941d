# A virtual machine of the lab: a disk, a boot loader and a kernel of its own, and the image that installs it. Its kernel
# is Debian's, its first stage the lab's (first-stage.sh), and /usr comes from the machine that it runs on.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) mkForce mkIf mkOverride optionalAttrs;
  isImage = options ? isoImage;
  picture = pkgs.runCommand "picture" { } "touch $out";
  # The programs that nixos-enter starts in the new system are in /usr there as well.
  install = pkgs.writeScriptBin "nixos-install" ''
    #!/bin/bash
    set -e
    mkdir -p /mnt/usr
    mount --rbind /usr /mnt/usr
    for folder in bin sbin lib lib64; do ln -sfn usr/$folder /mnt/$folder; done
    exec ${config.system.build.nixos-install}/bin/nixos-install "$@"
  '';
in
{
  config = mkIf (!config.boot.isContainer) (lib.mkMerge [{
    # Messages of the boot, and of the installation, where the lab can read them. The kernel panics if a busy emulator's
    # timer does not tick while it looks.
    boot.kernelParams = [ "console=ttyS0" "no_timer_check" "panic=-1" ];
    system.build.initialRamdisk = pkgs.labInitrd;
    # what an emulated processor takes, on a machine that has other things to do
    systemd.extraConfig = "DefaultDeviceTimeoutSec=15min\nDefaultTimeoutStartSec=15min\n";
    # module.nix asks for it
    systemd.tmpfiles.rules = [ "d /nix/var/nix/daemon-socket 0755 root root -" ];
  } (optionalAttrs isImage {
    boot.loader.grub.memtest86.enable = mkForce false;
    boot.supportedFilesystems = mkForce [ "ext4" "vfat" ];
    # what the image has for people: a manual, Nix's own sources, firmware of wireless cards
    documentation = { enable = mkOverride 40 false; nixos.enable = mkOverride 40 false; };
    installer.cloneConfig = mkForce false;
    networking.wireless.enable = mkForce false;
    system.extraDependencies = mkForce [ ];
    # an RSA key of 4096 bits takes an emulated processor minutes
    services.openssh.hostKeys = mkForce [ { type = "ed25519"; path = "/etc/ssh/ssh_host_ed25519_key"; } ];
    environment.systemPackages = [ (lib.hiPrio install) ];
    isoImage = { splashImage = mkForce picture; efiSplashImage = mkForce picture; grubTheme = mkForce null; };
  })]);
}
