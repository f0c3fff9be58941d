# The host's k3s server in a NixOS container, seen from the host. container.nix is its inside.
#
# Any change here or there restarts the container, and with it an etcd member. So nothing belongs here
# that changes without need, neither manifests nor other rows of the plan.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkIf;
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  inherit (host.k3s) server;
  places = import ./places.nix;

  device = "sys-subsystem-net-devices-${utils.escapeSystemdPath host.interface}.device";
in
{
  containers = mkIf (server != null) {
    ${server.name} = {
      autoStart = true;
      macvlans = [ host.interface ];

      bindMounts = {
        ${places.server.folder} = {
          hostPath = places.server.folder;
          isReadOnly = true;
        };
        # k3s applies what it finds anywhere below server/manifests
        "/var/lib/rancher/k3s/server/manifests/k3splan" = {
          hostPath = places.manifests;
          isReadOnly = true;
        };
      };

      # systemd in the container waits minutes for a network that is not there yet; the default of one
      # minute would kill the container before that, again and again
      timeoutStartSec = "5min";

      config = {
        imports = [ ./container.nix ] ++ cfg.serverImports;

        # what is only known outside
        k3splan = { inherit (cfg) host; };
        services.k3s = {
          inherit (cfg.k3s) package;
          extraFlags = mkIf (cfg.secrets ? agent-token) [ "--agent-token-file=${places.server.agentToken}" ];
        };
      };
    };
  };

  systemd = mkIf (server != null) {
    services."container@${server.name}" = {
      # systemd-nspawn refuses an interface that udev has not initialized
      wants = [ device ];
      after = [ device ];
      # an interface that appears late is not a reason to give up
      startLimitIntervalSec = 0;
      serviceConfig.RestartSec = "5s";
    };
    tmpfiles.rules = [ (places.keptFromOthers places.server.folder) ];
  };

  # `k3splan deploy` asks all servers before it stops one, and then Colmena evaluates and copies. So it leaves
  # the question here, to be asked again on the machine itself before anything is stopped.
  system.preSwitchChecks = mkIf (server != null) {
    k3splan = ''
      case "''${2-}" in
        dry-activate) ;;
        *) [ ! -e ${places.guard} ] || ${pkgs.runtimeShell} ${places.guard} ;;
      esac
    '';
  };
}
