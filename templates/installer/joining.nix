# The init server's host as one that joins the cluster of another server, which lives: a cluster must
# not be founded a second time beside itself. The next deployment makes it what the plan says; by
# then its etcd is a member, and the flag that founds clusters means nothing to it any more.
#
#   name   the init server's host
#   other  the host of the server that lives
name: other:
{ lib, ... }:
let
  plan = import ../modules/plan.nix;
  joins = { lib, ... }: {
    cluster.${name}.k3s.server.type = lib.mkForce "server";
    k3splan.network.init_server = lib.mkForce other;
  };
in
{
  imports = [ joins ];
  # the container reads the plan itself
  containers.${plan.hosts.${name}.k3s.server.name}.config = joins;
}
