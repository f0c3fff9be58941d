# The installer: setup.sh as the command `setup` and as a service that starts by itself, with what it has to
# know about the host.
{ config, lib, pkgs, ... }:
let
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  inherit (cfg.installer) installed joining netinstall;
  inherit (host.k3s) agent server;
  places = import ../modules/places.nix;
  target = installed.config;
  inherit (target.k3splan.installation) facts;

  # the other servers' addresses, if this is the host that founds the cluster
  others = lib.optionals (server != null && server.type == "init")
    (lib.filter (other: other.name != host.name && other.k3s.server != null) (lib.attrValues config.cluster));

  # A system is on the image, or its recipe is: all that it takes to fetch or build it, but no result.
  what = system: let inherit (system.config.system.build) toplevel; in {
    path = if netinstall then null else toplevel;
    recipe = if netinstall then builtins.unsafeDiscardOutputDependency toplevel.drvPath else null;
  };

  disko = target.disko.devices.disk or { };
  # Newer releases of disko ask by default. By then setup has checked the disks.
  diskoCommand = let inherit (target.system) build; in
    if build ? destroyFormatMount
    then [ (lib.getExe' build.destroyFormatMount "disko-destroy-format-mount") "--yes-wipe-all-disks" ]
    else [ "${build.diskoScript}" ];

  bootDevices = lib.filter (device: device != "nodev") target.boot.loader.grub.devices;

  settings = what installed // {
    host = host.name;
    # of the image, by which the disk that it was booted from is known
    volume = config.isoImage.volumeID;
    inherit (target.cluster.${host.name}) boot;
    inherit (host) serial mac;
    gateway = if host.ip == null then null else cfg.network.gateway;
    joining = lib.listToAttrs (map (other: lib.nameValuePair other.k3s.server.ip (what (joining other.name))) others);

    disko = if disko == { } then null else {
      disks = lib.mapAttrsToList (_: disk: disk.device) disko;
      command = diskoCommand;
      inherit (facts) keyFiles;
    };
    labelled = target.k3splan.labelledFileSystems;
    inherit (facts) bootLoader espMounts espSize fileSystems otherDevices;
    # Where the host's own configuration names the disk, NixOS installs GRUB there.
    grub = if target.boot.loader.grub.enable && bootDevices == [ ] && settings.boot == "legacy"
      then "${target.boot.loader.grub.package or pkgs.grub2}/bin/grub-install" else null;

    # kind of secret -> where the host reads it
    secrets = {
      passwd = [ places.passwd ] ++ lib.optional (server != null) places.server.passwd;
      ssh-host-key = [ places.ssh.hostKey ];
      server-token = lib.optional (server != null) places.server.token
        ++ lib.optional (agent != null && !hasAgentToken) places.agent.token;
      agent-token = lib.optionals hasAgentToken
        (lib.optional (server != null) places.server.agentToken ++ lib.optional (agent != null) places.agent.token);
    };

    # in seconds, for a person to intervene
    pause = 10;
  };
  hasAgentToken = target.k3splan.secrets ? agent-token;

  setup = pkgs.writeScriptBin "setup" (builtins.readFile ./setup.sh);
in
{
  environment = {
    systemPackages = [ setup ];
    # what it refers to comes onto the image with it
    etc."k3splan/installer.json".text = builtins.toJSON settings;
  };

  systemd.services = {
    # the first screen belongs to the installation; the others have shells
    "getty@tty1".enable = false;
    "autovt@tty1".enable = false;

    system_setup = {
      description = "Installation of ${host.name}";
      wantedBy = [ "multi-user.target" ];
      # multi-user.target waits for the network in old releases only
      wants = [ "network-online.target" ];
      after = [ "multi-user.target" "network-online.target" ];
      onFailure = [ "system_setup_failed.service" ];
      path = [ "/run/current-system/sw" ];
      environment.HOME = "/root";
      # an installation does not begin twice
      restartIfChanged = false;
      serviceConfig = {
        Type = "exec";
        ExecStart = "${setup}/bin/setup";
        StandardOutput = "journal+console";
        StandardError = "journal+console";
      };
    };

    # the reason stays on the screen, with a shell below it
    system_setup_failed = {
      description = "Shell after a failed installation";
      path = [ "/run/current-system/sw" ];
      environment = {
        HOME = "/root";
        TERM = "linux";
      };
      serviceConfig = {
        Type = "exec";
        ExecStart = pkgs.writeScript "after-failure" (builtins.readFile ./after-failure.sh);
        StandardInput = "tty-force";
        StandardOutput = "tty";
        StandardError = "tty";
        TTYPath = "/dev/tty1";
        Restart = "always";
      };
    };
  };
}
