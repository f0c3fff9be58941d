# The unit of a podman container as NixOS 24.11 writes it; the modules of the lab are older. podman gets
# the name of the unit, systemd the main process.
{ lib, pkgs, name, container }:
let
  inherit (lib) concatStringsSep escapeShellArg mapAttrsToList mkForce;
  id = "/run/podman-${name}.ctr-id";
  # This machine may not be allowed to raise its limits, which all of its containers share.
  inherit (builtins.fromJSON (builtins.readFile ./settings.json)) limits;
  isLow = limits.nofile < 1048576;
  limit = name: "--ulimit=${name}=${toString limits.${name}}:${toString limits.${name}}";
  options = lib.filter (option: !(isLow && lib.hasPrefix "--ulimit=" option)) container.extraOptions
    ++ lib.optionals isLow [ (limit "nofile") (limit "nproc") ];
  words = [ "exec podman run" "--name=${escapeShellArg name}" "--log-driver=${container.log-driver}" ]
    ++ [ "--cidfile=${id}" "--cgroups=no-conmon" "--sdnotify=conmon" "-d" "--replace" ]
    ++ mapAttrsToList (key: value: "-e ${escapeShellArg "${key}=${value}"}") container.environment
    ++ map (volume: "-v ${escapeShellArg volume}") (container.volumes ++ [ "/usr:/usr:ro" ])
    ++ map escapeShellArg (options ++ [ container.image ] ++ container.cmd);
  script = verb: text: pkgs.writeScript "podman-${name}-${verb}" "#!${pkgs.runtimeShell}\nset -e\n${text}\n";
in
{
  wants = [ "network-online.target" ];
  after = [ "network-online.target" ];
  environment.PODMAN_SYSTEMD_UNIT = "%n";
  preStart = lib.mkBefore "rm -f ${id}\n";
  # podman before 5 does not ignore that the file is missing
  postStop = mkForce "[ ! -e ${id} ] || podman rm -f --ignore --cidfile=${id}";
  serviceConfig = {
    Type = "notify";
    NotifyAccess = "all";
    ExecStart = mkForce (script "start" (concatStringsSep " \\\n  " words));
    ExecStop = mkForce (script "stop" "exec podman stop --ignore --cidfile=${id}");
    StandardOutput = mkForce "journal";
    StandardError = mkForce "journal";
  };
}
