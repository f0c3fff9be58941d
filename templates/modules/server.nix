# The host's k3s server, in a NixOS container: seen from the host. Inside, see container.nix.
#
# Whatever changes here or there restarts the container, and with it a member of etcd. So nothing
# may get in that changes without need: not the manifests, not the other rows of the plan.
{ config, lib, utils, ... }:
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

      # systemd in the container waits up to two minutes for a network that is not there yet; the
      # usual minute would kill it before that, again and again
      timeoutStartSec = "5min";

      config = {
        imports = [ ./container.nix ] ++ cfg.serverImports;

        # what only the host knows
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
      # systemd-nspawn refuses an interface that udev has not finished with
      wants = [ device ];
      after = [ device ];
      # an interface that comes late is no reason to give up
      startLimitIntervalSec = 0;
      serviceConfig.RestartSec = "5s";
    };
    tmpfiles.rules = [ (places.keptFromOthers places.server.folder) ];
  };
}
