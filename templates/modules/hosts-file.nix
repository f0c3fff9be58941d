# Every host and container of the plan in the host's /etc/hosts. The containers do not get this list: a
# new row would restart every etcd member.
{ config, lib, ... }:
let
  inherit (config.k3splan.network) domain;

  containersOf = host: lib.filter (container: container != null) [ host.k3s.server host.k3s.agent ];
  withAddress = lib.concatMap
    (host: lib.optional (host.ip != null) host ++ containersOf host)
    (lib.attrValues config.cluster);

  namesOf = name: lib.optional (domain != null) "${name}.${domain}" ++ [ name ];
in
{
  networking.hosts = lib.listToAttrs
    (map ({ ip, name, ... }: lib.nameValuePair ip (namesOf name)) withAddress);
}
