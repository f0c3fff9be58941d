# What a system needs to run as a machine of the lab, in containers too: machines that share a kernel have neither
# disks nor a boot loader, virtual ones have both (virtual.nix).
{ config, lib, pkgs, ... }:
let
  inherit (builtins.fromJSON (builtins.readFile ./settings.json)) virtual;
  inherit (lib) mkForce mkIf mkMerge;
  inherit (config.boot) isContainer;
  daemonSocket = "/nix/var/nix/daemon-socket";
  noLoader = pkgs.writeScript "no-boot-loader" "#!/bin/sh\n";
  emptyFolder = pkgs.runCommand "empty" { } "mkdir $out";
  nothing = mkForce { text = ""; deps = [ ]; };
in
{
  imports = lib.optional virtual ./virtual.nix;

  # The programs of all packages are in /usr. Today's NixOS has systemd-nspawn shut a container down.
  options.containers = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule { config.extraFlags = [ "--bind-ro=/usr" "--kill-signal=SIGRTMIN+3" ]; });
  };

  config = mkMerge [
    {
      nixpkgs.overlays = lib.mkAfter [ (import ./overlay.nix) ];

      # /usr is Debian's, and read-only
      system.activationScripts = { binsh = nothing; usrbinenv = nothing; };
      # its setuid programs are used as they are
      security.wrappers = mkForce { };
      security.pam.services.su-l.rootOK = true;
      # logind was seen to keep logins waiting for its 25 s
      security.pam.services.sshd.startSession = mkForce false;
      system.nssModules = mkForce [ ];
      services.nscd.enable = mkForce false;
      environment.etc = {
        "resolv.conf".text = lib.concatMapStrings (server: "nameserver ${server}\n") config.networking.nameservers;
        "systemd/system-generators".source = mkForce emptyFolder;
        "systemd/system-shutdown".source = mkForce emptyFolder;
      };
      # which come with packages of NixOS, and not with Debian's
      systemd.services.dbus = {
        requires = [ "dbus.socket" ];
        serviceConfig.ExecStart = "/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only";
        serviceConfig.ExecReload = "/usr/bin/dbus-send --print-reply --system --type=method_call --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig";
      };
      systemd.sockets.dbus.socketConfig.ListenStream = "/run/dbus/system_bus_socket";
      systemd.services.nix-daemon = {
        unitConfig.ConditionPathIsReadWrite = daemonSocket;
        serviceConfig = { ExecStart = "/usr/bin/nix-daemon --daemon"; KillMode = "process"; };
      };
      systemd.sockets.nix-daemon = {
        # in a container it is the host's
        unitConfig.ConditionPathIsReadWrite = daemonSocket;
        socketConfig.ListenStream = "${daemonSocket}/socket";
      };
      i18n.defaultLocale = mkForce "C.UTF-8";
      i18n.supportedLocales = mkForce [ "C.UTF-8/UTF-8" ];

      # less of what nobody looks at here
      documentation.enable = mkForce false;
      fonts.fontconfig.enable = mkForce false;
      security.polkit.enable = mkForce false;
      security.rngd.enable = mkForce false;
      services.udisks2.enable = mkForce false;
      xdg = lib.genAttrs [ "autostart" "icons" "menus" "mime" "sounds" ] (_: { enable = mkForce false; });
      programs.command-not-found.enable = mkForce false;
      programs.bash.enableCompletion = mkForce false;
      environment.defaultPackages = mkForce [ ];
      services.resolved.enable = mkForce false;
      networking.resolvconf.enable = mkForce false;
    }
    (mkIf (!isContainer) {
      boot.kernelPackages = mkForce pkgs.linuxPackages;
      boot.initrd.enable = mkForce false;
      system.build.initialRamdiskSecretAppender = pkgs.writeScriptBin "append-initrd-secrets" "#!/bin/sh\n";
      hardware.firmware = mkForce [ ];
      hardware.enableRedistributableFirmware = mkForce false;
      system.activationScripts.udevd = nothing;
      system.activationScripts.modprobe = nothing;
      environment.etc = {
        "udev/hwdb.bin".enable = false;
        "udev/rules.d".source = mkForce emptyFolder;
      };
      # there is none, and each query would wait for it
      nix.binaryCaches = mkForce [ ];
      services.smartd.enable = mkForce false;
      services.nfs.server.enable = mkForce false;
      systemd = {
        tmpfiles.rules = [ "d /run/sshd 0755 root root -" ];
        additionalUpstreamSystemUnits = [ "dbus-org.freedesktop.login1.service" ];
        services = lib.mapAttrs'
          (name: _: lib.nameValuePair "container@${name}" {
            preStop = mkForce "";
            serviceConfig.KillSignal = mkForce "TERM";
            preStart = lib.mkBefore ''
              mkdir -p $root/usr
              for folder in bin sbin lib lib64; do ln -sfn usr/$folder $root/$folder; done
            '';
          })
          config.containers
        // lib.mapAttrs' (name: container: lib.nameValuePair "podman-${name}" (import ./podman-unit.nix { inherit lib pkgs name container; }))
          config.virtualisation.oci-containers.containers
        // { audit.enable = false; };
      };
    })
    (mkIf (!isContainer && !virtual) {
      boot = {
        loader.grub.enable = mkForce false;
        loader.systemd-boot.enable = mkForce false;
        # one that k3splan knows, and that does nothing: see installBootLoader
        loader.external = { enable = mkForce true; installHook = mkForce noLoader; };
        # for udev, the sign that devices will be announced; for podman, a place to make groups in
        postBootCommands = ''
          mkdir -p /run/udev; touch /run/udev/control
          for hierarchy in /sys/fs/cgroup/*; do mount -o remount,bind,rw $hierarchy || true; done
        '';
      };
      system.build = {
        initialRamdisk = pkgs.linuxPackages.kernel;
        installBootLoader = noLoader;
      };
      fileSystems = mkForce { "/" = { device = "/dev/lab"; fsType = "ext4"; }; };
      environment.etc.fstab.text = mkForce "";
      systemd.services = {
        # settings of the kernel that belong to others
        systemd-sysctl.serviceConfig.ExecStart = [ "" "/usr/lib/systemd/systemd-sysctl --prefix=/net" ];
        systemd-udev-trigger.serviceConfig.ExecStart = [ "" "/usr/bin/udevadm trigger --type=devices --action=add --subsystem-match=net" ];
      };
    })
    (mkIf (!isContainer && config.virtualisation.podman.enable) {
      environment.etc."containers/registries.conf".source = mkForce (pkgs.writeText "registries.conf" "");
      environment.etc."containers/containers.conf".source = mkForce (pkgs.writeText "containers.conf" ''
        [network]
        network_backend = "netavark"
        [engine]
        runtime = "crun"
      '');
      environment.etc."cni/net.d/87-podman-bridge.conflist".enable = mkForce false;
    })
  ];
}
