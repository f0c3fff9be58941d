# How a boot stick installs this host, and what would prevent that as far as evaluation knows. The stick
# erases a disk long before the installation ends, so `k3splan boot-stick` refuses a host with problems.
# Everywhere else they are warnings: a host that runs may have been installed in another way.
{ config, lib, options, ... }:
let
  inherit (lib)
    any attrNames attrValues concatMap concatMapStringsSep concatStrings elem filter hasInfix hasPrefix mkOption
    optional optionals removePrefix types unique;
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  isEFI = host.boot == "efi";
  inherit (config.boot) loader;
  layout = config.disko.devices or { };

  way =
    if layout.disk or { } != { } then "disko"
    else if cfg.labelledFileSystems && host.serial != null then "own"
    else "existing";

  problem = code: file: message: hint: { inherit code file message hint; };
  enumerate = concatMapStringsSep ", " toString;

  ## Files

  # relative to the project, which is two folders above this one
  project = toString ../..;
  fromProject = file: removePrefix "${project}/" (toString file);
  # the user's files that define a key of an option, or the whole option if there is no such file
  definedIn = option: key:
    let
      own = filter (definition: !(hasPrefix (toString ../.) (toString definition.file))) option.definitionsWithLocations;
      exact = filter (definition: builtins.isAttrs definition.value && definition.value ? ${key}) own;
      files = map (definition: fromProject definition.file) (if exact != [ ] then exact else own);
    in
    if files == [ ] then hostsTable else builtins.head files;
  hostsTable = "plans/hosts.csv";
  layoutFile = "partitioning/${host.name}.nix";

  ## File systems

  # as a path, however it is written
  tags = { LABEL = "by-label"; UUID = "by-uuid"; PARTLABEL = "by-partlabel"; PARTUUID = "by-partuuid"; };
  devicePath = device:
    let parts = builtins.match "([A-Z]+)=(.*)" device; in
    if parts != null && tags ? ${builtins.head parts} then "/dev/disk/${tags.${builtins.head parts}}/${lib.last parts}"
    else device;
  deviceOf = fs: if fs.device == null then "" else devicePath fs.device;
  isMounted = fs: lib.mutuallyExclusive [ "nofail" "noauto" ] fs.options;
  mounted = filter isMounted (attrValues config.fileSystems);
  onDisk = filter (fs: hasPrefix "/dev/" (deviceOf fs)) mounted;

  # What the installer makes where it partitions the disk itself: see `partition` in its setup.sh.
  # Names of partitions exist in GPT only.
  made = label: [ "/dev/disk/by-label/${label}" ] ++ optional isEFI "/dev/disk/by-partlabel/${label}";
  isMade = fs:
    elem (deviceOf fs) (made "nixos") && elem fs.fsType [ "ext4" "auto" ]
    || isEFI && elem (deviceOf fs) (made "boot") && elem fs.fsType [ "vfat" "auto" ];
  foreign = filter (fs: !isMade fs) (onDisk ++ filter (fs: fs.fsType == "zfs") mounted);
  foreignSwap = filter (swap: hasPrefix "/dev/" swap.device && !(elem "nofail" (swap.options or [ ]))) config.swapDevices;
  encrypted = attrNames config.boot.initrd.luks.devices;

  ownWay = "take it out, or describe the disk in ${layoutFile}, or take the serial of ${host.name} out of ${hostsTable} to install on the file systems that its machine has";
  fileSystemProblems =
    optionals (way == "own")
      (map
        (fs: problem "file-system-foreign" (definedIn options.fileSystems fs.mountPoint)
          "the file system ${fs.mountPoint} (${fs.fsType}) is expected on ${fs.device}, which the boot stick does not make: it erases the disk ${host.serial} and makes ext4 with the label \"nixos\"${lib.optionalString isEFI " and vfat with the label \"boot\""}"
          ownWay)
        foreign
      ++ map
        (swap: problem "file-system-foreign" (definedIn options.swapDevices "device")
          "swap is expected on ${swap.device}, which the boot stick does not make: it erases the disk ${host.serial} and makes its own file systems"
          ownWay)
        foreignSwap
      ++ optional (encrypted != [ ]) (problem "luks-foreign" (definedIn options.boot.initrd.luks.devices (builtins.head encrypted))
        "the system expects encrypted devices (LUKS: ${enumerate encrypted}), which the boot stick does not make" ownWay))
    ++ optional (way == "existing" && !(any (fs: fs.mountPoint == "/") onDisk)) (problem "root-missing" (definedIn options.fileSystems "/")
      "the root file system is not on a disk that the boot stick could mount"
      "describe the disk in ${layoutFile}, or define fileSystems.\"/\" with a device below /dev");

  ## Boot loader

  # whether an option that this release may not have is on
  enabled = path:
    let option = lib.attrByPath path null options; in
    option != null && option.isDefined or false && option.value;
  loaders = [
    { name = "unified"; option = [ "boot" "lanzaboote" ]; }
    { name = "systemd-boot"; option = [ "boot" "loader" "systemd-boot" ]; }
    { name = "limine"; option = [ "boot" "loader" "limine" ]; }
    { name = "refind"; option = [ "boot" "loader" "refind" ]; }
    { name = "grub"; option = [ "boot" "loader" "grub" ]; }
    { name = "extlinux"; option = [ "boot" "loader" "generic-extlinux-compatible" ]; }
    { name = "raspberry-pi"; option = [ "boot" "loader" "raspberryPi" ]; }
    { name = "external"; option = [ "boot" "loader" "external" ]; }
    { name = "init-script"; option = [ "boot" "loader" "initScript" ]; }
  ];
  bootLoader = (lib.findFirst (l: enabled (l.option ++ [ "enable" ])) { name = "none"; } loaders).name;

  # where the boot loader is installed; some are started by firmware that needs no EFI partition
  espMounts =
    if !isEFI || elem bootLoader [ "extlinux" "raspberry-pi" "external" "init-script" "none" ] then [ ]
    else if bootLoader == "grub" && loader.grub.mirroredBoots != [ ]
    then unique (map (boot: if boot.efiSysMountPoint == null then loader.efi.efiSysMountPoint else boot.efiSysMountPoint) loader.grub.mirroredBoots)
    else [ loader.efi.efiSysMountPoint ];
  missingESP = filter (mount: !(any (fs: fs.mountPoint == mount && elem fs.fsType [ "vfat" "msdos" "auto" ]) onDisk)) espMounts;

  bootProblems =
    optional (bootLoader == "none") (problem "boot-loader-missing" hostsTable
      "no boot loader is enabled, so the installed system would not start" "enable one below boot.loader")
    ++ optional (!isEFI && elem bootLoader [ "unified" "systemd-boot" "refind" ]) (problem "boot-mode" hostsTable
      "${host.name} boots in BIOS mode, and its boot loader (${bootLoader}) needs EFI" "set boot to efi, or enable GRUB")
    ++ optional (!isEFI && bootLoader == "grub" && host.system != "x86_64-linux") (problem "boot-mode" hostsTable
      "${host.name} boots in BIOS mode, which ${host.system} does not have" "set boot to efi, or enable the boot loader of the board")
    ++ optional (isEFI && bootLoader == "grub" && !loader.grub.efiSupport) (problem "boot-mode" hostsTable
      "${host.name} boots by EFI, and its GRUB is made for BIOS mode" "set boot.loader.grub.efiSupport, or boot to legacy")
    ++ map
      (mount: problem "efi-partition-missing" (if way == "disko" then layoutFile else definedIn options.fileSystems mount)
        "${host.name} boots by EFI, and ${mount} is not a FAT file system that the boot stick could mount"
        "make ${mount} an EFI system partition (vfat), or set boot to legacy in ${hostsTable}")
      missingESP;

  ## Layouts of disko

  listOf = set: if builtins.isList set then set else attrValues set;
  inside = node:
    optional (node.content or null != null) node.content
    ++ concatMap (key: listOf (node.${key} or { })) [ "partitions" "lvs" "datasets" "subvolumes" ];
  withInside = node: [ node ] ++ concatMap withInside (inside node);
  layoutNodes = concatMap withInside
    (concatMap (key: attrValues (layout.${key} or { })) [ "disk" "lvm_vg" "mdadm" "zpool" "bcachefs_filesystems" ]);
  ofType = type: filter (node: node.type or null == type) layoutNodes;

  # what disko would read, and what it would ask for
  luksKeys = node:
    (if node.settings ? keyFile then [ node.settings.keyFile ]
    else if node.askPassword then [ null ]
    else filter (file: file != null) [ node.passwordFile node.keyFile ])
    ++ node.additionalKeyFiles;
  zfsKeys = settings:
    let location = settings.keylocation or "prompt"; in
    if settings.encryption or "off" == "off" then [ ]
    else if hasPrefix "file://" location then [ (removePrefix "file://" location) ]
    else optional (location == "prompt") null;
  keys = unique (concatMap luksKeys (ofType "luks")
    ++ concatMap (node: zfsKeys node.options) (ofType "zfs_fs" ++ ofType "zfs_volume")
    ++ concatMap (node: zfsKeys node.rootFsOptions) (ofType "zpool")
    ++ concatMap (node: optional (node.passwordFile or null != null) node.passwordFile) (attrValues (layout.bcachefs_filesystems or { })));
  hooks = concatStrings (map (node: "${node.preCreateHook or ""}${node.preMountHook or ""}") layoutNodes);
  # a file that the layout itself writes or names in the store, or a device that somebody plugs in
  isBrought = file: hasPrefix builtins.storeDir file || hasPrefix "/dev/" file || hasInfix file hooks;
  keyFiles = filter (file: file != null) keys;

  # Devices that the system needs and that nothing in the installation makes: a disk with data, for example.
  layoutMounts = map (node: node.mountpoint or null) (layoutNodes ++ attrValues (layout.nodev or { }));
  layoutSwaps = map (node: node.device) (ofType "swap");
  otherDevices =
    optionals (way == "disko") (map deviceOf (filter (fs: !(elem fs.mountPoint layoutMounts)) onDisk))
    ++ optionals (way != "own") (map (swap: swap.device) (filter (swap: !(elem swap.device layoutSwaps)) foreignSwap));

  isESP = type: elem (lib.toUpper type) [ "EF00" "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" ];
  isBIOSBoot = type: elem (lib.toUpper type) [ "EF02" "21686148-6449-6E6F-744E-656564454649" ];
  gptPartitions = concatMap (node: attrValues node.partitions) (ofType "gpt");
  espPartitions = filter (partition: elem (partition.content.mountpoint or null) espMounts) gptPartitions;
  # bytes of a size as sgdisk takes it, or null
  bytes = size:
    let
      parts = builtins.match "([0-9]+)([KMGTP])i?B?" (toString size);
      units = { K = 1024; M = units.K * 1024; G = units.M * 1024; T = units.G * 1024; P = units.T * 1024; };
    in
    if parts == null then null else lib.toInt (builtins.head parts) * units.${lib.last parts};
  sizeOf = partition:
    let
      orZero = size: if size == null then 0 else size;
      size = bytes (partition.size or "");
      end = bytes (partition.end or "");
    in
    if size != null then size
    else if end != null then end - orZero (bytes (partition.start or ""))
    else null;
  espSizes = filter (size: size != null) (map sizeOf espPartitions);
  smallest = 64 * 1024 * 1024;

  layoutProblem = code: problem code layoutFile;
  layoutProblems = optionals (way == "disko") (
    optional (!(config.fileSystems ? "/")) (layoutProblem "root-missing"
      "the layout has no root file system" "give a file system the mountpoint \"/\"")
    ++ optional (elem null keys) (layoutProblem "disk-key-missing"
      "the layout is encrypted and asks for a passphrase, which nobody can type during an installation by a boot stick"
      "take the encryption out, or install ${host.name} without a boot stick and deploy to it then")
    ++ map
      (file: layoutProblem "disk-key-missing"
        "the layout is encrypted with the key in ${file}, which the boot stick does not bring"
        "take the encryption out, or install ${host.name} without a boot stick and deploy to it then; a hook of the layout (preCreateHook) may make the file, too")
      (filter (file: !isBrought file) keyFiles)
    ++ optional (!isEFI && bootLoader == "grub" && ofType "gpt" != [ ] && !(any (node: node.format or "" == "msdos") (ofType "table"))
      && !(any (partition: isBIOSBoot partition.type) gptPartitions)) (layoutProblem "bios-boot-missing"
      "${host.name} boots in BIOS mode, and the layout has no BIOS boot partition, without which GRUB has no room on a GPT disk"
      "add a partition of 1M with the type EF02, or set boot to efi in ${hostsTable}")
    ++ map
      (partition: layoutProblem "efi-partition-type"
        "the partition ${partition.name} at ${partition.content.mountpoint} has the type ${partition.type}, so the firmware does not see an EFI system partition"
        "give it the type EF00")
      (filter (partition: !isESP partition.type) espPartitions)
    ++ map
      (partition: layoutProblem "efi-partition-small"
        "the EFI system partition ${partition.name} has ${toString (sizeOf partition / 1024 / 1024)} MiB, and a kernel with its initrd does not fit"
        "give it 512M or more")
      (filter (partition: let size = sizeOf partition; in size != null && size < smallest) espPartitions));

  ## Network

  inherit (config) networking;
  netdevs = attrValues config.systemd.network.netdevs;
  makers = filter (key: (options.networking.${key} or { }).isDefined or false)
    [ "bonds" "bridges" "greTunnels" "ipips" "macvlans" "sits" "vlans" "vswitches" "wlanInterfaces" ];
  renamed = map (link: link.linkConfig.Name or "") (attrValues config.systemd.network.links);
  madeInterfaces = concatMap (key: attrNames networking.${key}) makers
    ++ attrNames (networking.wireguard.interfaces or { })
    ++ map (netdev: netdev.netdevConfig.Name or "") netdevs
    ++ renamed
    ++ map (interface: interface.name) (filter (interface: interface.virtual) (attrValues networking.interfaces));
  # Nothing is known of what other programs make, unless they name it.
  isMadeElsewhere = name: networking.networkmanager.enable
    || hasInfix name networking.localCommands
    || hasInfix "\"${name}\"" config.services.udev.extraRules;
  # The names of hardware that the kernel and udev give hold no dot, and do not begin like these.
  isVirtual = name: builtins.match "(bond|br|vmbr|virbr|vlan|team|dummy|veth|tun|tap|vxlan|wg)[-_]?[0-9].*|(bond|br|bridge|vlan|team)([-_].*)?|.*[.].*" name != null;
  neededInterfaces = unique ([ host.interface ]
    ++ map (macvlan: macvlan.interface) (attrValues networking.macvlans)
    ++ map (vlan: vlan.interface) (attrValues networking.vlans)
    ++ concatMap (bond: bond.interfaces) (attrValues networking.bonds)
    ++ concatMap (bridge: bridge.interfaces) (attrValues networking.bridges));
  networkProblems = map
    (name: problem "interface-missing" hostsTable
      "nothing makes the interface ${name}, so ${host.name} would have no network"
      "define it (networking.bonds, .vlans, .bridges, or systemd.network.netdevs), or name the interface that ${host.name} has")
    (filter (name: isVirtual name && !(elem name madeInterfaces) && !(isMadeElsewhere name)) neededInterfaces);
in
{
  options.k3splan.installation = {
    accept = mkOption {
      description = "Codes of problems to be ignored, for example `interface-missing` where a program makes the interface.";
      type = types.listOf types.str;
      default = [ ];
    };
    problems = mkOption {
      description = "What would prevent an installation by a boot stick: `code`, `file`, `message` and `hint` of each.";
      type = types.listOf (types.attrsOf types.str);
      internal = true;
      readOnly = true;
    };
    facts = mkOption {
      description = "What the installer needs of the configuration.";
      type = types.attrsOf types.raw;
      internal = true;
      readOnly = true;
    };
  };

  config = {
    k3splan.installation = {
      problems = filter (p: !(elem p.code cfg.installation.accept))
        (fileSystemProblems ++ bootProblems ++ layoutProblems ++ networkProblems);
      facts = {
        inherit bootLoader espMounts keyFiles otherDevices way;
        # in bytes, null if they are not known
        espSize = if espSizes == [ ] then null else lib.foldl' lib.min (builtins.head espSizes) espSizes;
        # in the order in which they can be mounted
        fileSystems = map
          (fs: {
            inherit (fs) mountPoint;
            device = deviceOf fs;
            # those that say what is mounted; others concern the running system
            options = filter (option: builtins.match "(subvol|subvolid|compress|compress-force|X-mount[.]subdir)=.*|degraded" option != null) fs.options;
          })
          (lib.sort (a: b: a.mountPoint < b.mountPoint) onDisk);
      };
    };

    warnings = map (p: "${p.file}: a boot stick could not install ${host.name}: ${p.message}. To fix it: ${p.hint}") cfg.installation.problems;
  };
}
