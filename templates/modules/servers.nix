# The addresses of the cluster's servers, in a file for the containers of the host: what joins the cluster
# asks one of them that answers (find-server.nix). Filled at activation, like the manifests: if it were part
# of a container's configuration, a new row would restart every etcd member.
{ config, lib, ... }:
let
  inherit (config.k3splan) network;
  inherit (config.cluster.${config.k3splan.host}.k3s) server agent;
  places = import ./places.nix;

  planned = lib.filter (other: other != null) (map (host: host.k3s.server) (lib.attrValues config.cluster));
  isInit = other: other.name == config.cluster.${network.init_server}.k3s.server.name;
  # the init server is asked first
  servers = lib.filter isInit planned ++ lib.filter (other: !isInit other) planned;
  addressesOf = map (other: other.ip);

  write = file: addresses: ''
    mkdir -p ${dirOf file}
    printf %s ${lib.escapeShellArg (lib.concatMapStrings (address: "${address}\n") addresses)} > ${file}.new
    mv ${file}.new ${file}
  '';
in
{
  system.activationScripts = lib.mkIf (server != null || agent != null) {
    k3splan-servers = ''
      (
        set -e
        umask 077
        ${lib.optionalString (server != null)
          # a server does not join by itself
          (write places.server.servers (addressesOf (lib.filter (other: other.name != server.name) servers)))}
        ${lib.optionalString (agent != null) (write places.agent.servers (addressesOf servers))}
      )
    '';
  };
}
