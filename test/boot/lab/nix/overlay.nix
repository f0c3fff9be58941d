# NixOS's packages without building any: all of them are one store path with links into the /usr of the
# machine that they run on, which the lab mounts. What NixOS itself writes (units, scripts, files of /etc)
# is built as ever.
final: prev:
let
  inherit (prev) lib;
  settings = builtins.fromJSON (builtins.readFile ./settings.json);
  platform = lib.systems.elaborate "x86_64-linux";

  # Builders run with the programs of this machine, too.
  generic = settings.nixpkgs + "/pkgs/stdenv/generic";
  bare = import generic {
    inherit (prev) config;
    name = "stdenv-usr";
    buildPlatform = platform;
    hostPlatform = platform;
    targetPlatform = platform;
    preHook = "export NIX_ENFORCE_PURITY=\n";
    initialPath = [ "/usr" ];
    shell = "/bin/bash";
    # bash from 5.2 on ignores -N 0
    setupScript = builtins.toFile "setup.sh"
      (lib.replaceStrings [ "read -r -N 0 " ] [ "read -r -d '' " ] (builtins.readFile (generic + "/setup.sh")));
    cc = null;
    fetchurlBoot = null;
  };
  stdenv = bare // { override = _: stdenv; inherit cc; };
  cc = let flags = { isGNU = true; isClang = false; targetPrefix = ""; version = "0"; }; in usr // flags // { cc = usr // flags; bintools = usr // flags; libc = usr; };

  # one path for every package and each of its outputs
  usr = stdenv.mkDerivation {
    name = "usr";
    preferLocalBuild = true;
    # made again when the programs of this machine are others
    inherit (settings) root more stamp;
    units = toString missingUnits;
    buildCommand = builtins.readFile ./usr.sh;
  };
  missingUnits = settings.missingUnits;

  replaced = value:
    let
      package = value // usr // outputs // {
        inherit (value) name;
        version = value.version or "0";
        override = _: package;
        overrideAttrs = _: package;
        overrideDerivation = _: package;
        meta = { platforms = [ "x86_64-linux" ]; };
      };
      outputs = lib.genAttrs [ "out" "bin" "dev" "lib" "man" "doc" "info" "daemon" "su" ] (_: package);
    in
    package;

  toTodaysFolders = ''
    sed -i 's|/etc/containers|/etc/nixos-containers|g; s|/var/lib/containers|/var/lib/nixos-containers|g' $out/bin/nixos-container
  '';

  # Kept as they are: what nixpkgs makes by writing a file, and whatever is not a package.
  isReal = name: lib.elem name ([ "stdenv" "stdenvNoCC" "nixos-container" ] ++ lib.attrNames own) || lib.hasPrefix "k3s" name;
  own = {
    inherit stdenv;
    stdenvNoCC = stdenv;
    path = ./.;
    runtimeShell = "/bin/bash";

    bash = replaced prev.bash // { shellPath = "/bin/bash"; };
    bashInteractive = replaced prev.bash // { shellPath = "/bin/bash"; };
    perl = replaced prev.perl // { libPrefix = "lib/perl5/site_perl"; withPackages = _: final.perl; };
    systemd = replaced prev.systemd // { interfaceVersion = 2; withLogind = true; inherit (final) kmod utillinux; };
    udev = final.systemd;
    # sets of packages
    perlPackages = lib.mapAttrs (_: value: if lib.isDerivation value then usr else value) prev.perlPackages // { inherit (final) perl; };
    xorg = lib.mapAttrs (_: value: if lib.isDerivation value then usr else value) prev.xorg;
    nix = replaced prev.nix // { name = "nix-2.8.0"; version = "2.8.0"; };
    # what NixOS takes from the sources of packages
    skopeo = replaced prev.skopeo // { src = prev.runCommand "skopeo" { } "mkdir $out; echo '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' > $out/default-policy.json"; };
    # Debian's settings of the message bus are in /usr
    makeDBusConf = _: prev.runCommand "dbus-1" { } "mkdir $out";
    kbdKeymaps = { dvp = usr; neo = usr; };

    # today's folders, which the program of 20.09 does not know; once, however often this overlay is applied
    nixos-container = prev.nixos-container.overrideAttrs (old: {
      postInstall = lib.head (lib.splitString toTodaysFolders (old.postInstall or "")) + toTodaysFolders;
    });

    aggregateModules = _: if settings.virtual then kernel else usr;
    linuxPackages = lib.makeExtensible (_: { inherit stdenv kernel; });
    labInitrd = initrd;

    # of the installer's image, which NixOS compresses for minutes, and today's as its options say
    squashfsTools = prev.writeScriptBin "mksquashfs" ''
      #!/bin/bash
      exec /usr/bin/mksquashfs "''${@:1:$#-4}" -comp zstd -Xcompression-level 1
    '';
    syslinux = prev.runCommand "syslinux" { } ''
      mkdir -p $out/share/syslinux
      cp /usr/lib/ISOLINUX/{isolinux.bin,isohdpfx.bin} /usr/lib/syslinux/modules/bios/*.c32 $out/share/syslinux/
    '';
    grub2_efi = prev.runCommand "grub-efi" { } ''
      mkdir -p $out/{bin,lib,share}
      ln -s /usr/bin/grub-mkimage $out/bin/
      ln -s /usr/lib/grub $out/lib/grub
      ln -s /usr/share/grub $out/share/grub
    '' // { grubTarget = "x86_64-efi"; };
    refind = prev.runCommand "refind" { } "mkdir -p $out/share/refind; touch $out/share/refind/refind_x64.efi";
  };

  # what a virtual machine has, and whatever loads a module there
  kernelFiles = stdenv.mkDerivation {
    name = "linux-${settings.kernel}";
    inherit (settings) more kernel;
    buildCommand = ''
      mkdir $out
      cp $more/../boot/vmlinuz-$kernel $out/bzImage
      from=$more/../lib/modules/$kernel to=$out/lib/modules/$kernel
      mkdir -p $to/kernel/drivers/{net,scsi,usb}
      cp $from/modules.{builtin,builtin.modinfo,order} $to/
      cp -r $from/kernel/{arch,block,crypto,fs,lib,mm,net} $to/kernel/
      cp -r $from/kernel/drivers/{ata,block,cdrom,char,firmware,hid,input,md,nvme,virtio} $to/kernel/drivers/
      cp -r $from/kernel/drivers/usb/{common,core,host,storage} $to/kernel/drivers/usb/
      cp $from/kernel/drivers/net/*.ko $to/kernel/drivers/net/
      cp -r $from/kernel/drivers/net/vxlan $to/kernel/drivers/net/
      cp $from/kernel/drivers/scsi/*.ko $to/kernel/drivers/scsi/
      /usr/sbin/depmod --basedir $out $kernel
    '';
  };
  initrd = stdenv.mkDerivation {
    name = "initrd";
    inherit (settings) kernel;
    files = kernelFiles;
    masked = toString settings.masked;
    modules = "virtio_pci virtio_blk virtio_scsi ahci nvme sd_mod sr_mod xhci_pci usb_storage uas "
      + "ext4 crc32c_generic vfat nls_cp437 nls_ascii iso9660 squashfs loop overlay 9p 9pnet_virtio efivarfs";
    buildCommand = ''
      mkdir -p root/{bin,dev,proc,sys,target,usr,lib/modules/$kernel} $out
      cp /bin/busybox root/bin/
      for name in $(/bin/busybox --list); do [ $name = busybox ] || ln -s busybox root/bin/$name; done
      cp ${./first-stage.sh} root/init
      chmod +x root/init
      echo $masked > root/masked
      echo $modules > root/modules
      for module in $modules; do
        /usr/sbin/modprobe --dirname $files --set-version $kernel --show-depends $module | sed -n 's/^insmod //p'
      done | sort -u | while read -r file _; do
        mkdir -p "root/$(dirname ''${file#$files/})"
        cp $file "root/''${file#$files/}"
      done
      cp $files/lib/modules/$kernel/modules.{builtin,builtin.modinfo,order} root/lib/modules/$kernel/
      /usr/sbin/depmod --basedir root $kernel
      (cd root && find . -print0 | sort -z | cpio --quiet --null --create --format=newc --owner=0:0) | gzip -n > $out/initrd
    '';
  };

  kernel = (if settings.virtual then kernelFiles else usr) // {
    version = if settings.virtual then settings.kernel else "6.6";
    modDirVersion = kernel.version;
    features.efiBootStub = true;
    kernelOlder = lib.versionOlder "6.6";
    kernelAtLeast = lib.versionAtLeast "6.6";
    config = { isYes = _: true; isNo = _: false; isModule = _: true; isEnabled = _: true; isDisabled = _: false; isSet = _: true; };
    override = _: kernel;
    overrideAttrs = _: kernel;
    meta = { };
  };

  # k3s of a version that the plan may name: $LAB_K3S, or the lab's stand-in
  k3s = version: stdenv.mkDerivation {
    name = "k3s-${version}";
    preferLocalBuild = true;
    buildCommand = ''
      mkdir -p $out/bin $out/lib
      cp ${/. + settings.k3s} $out/lib/k3s
      # it finds the other programs by PATH
      printf '%s\n' '#!/bin/bash' "export LAB_K3S_VERSION=v${version} PATH=\$PATH:/usr/sbin:/usr/bin:/usr/lib/cni" \
        "exec -a k3s $out/lib/k3s \"\$@\"" > $out/bin/k3s
      chmod +x $out/bin/k3s
    '';
  } // { inherit version; };
  k3sPackages = lib.mapAttrs (_: k3s) settings.k3sVersions // lib.optionalAttrs settings.standIn {
    # before Debian's
    etcd = lib.hiPrio (stdenv.mkDerivation {
      name = "etcdctl";
      buildCommand = "mkdir -p $out/bin; cp ${/. + settings.k3s} $out/bin/etcdctl";
    });
  };
in
builtins.mapAttrs (name: value: if isReal name then value else if lib.isDerivation value then replaced value else value) prev
  // own // k3sPackages
