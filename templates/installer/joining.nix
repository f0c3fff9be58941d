# The init server's host as one that joins the running cluster of another server, because a second cluster
# must not be founded beside it. The next deployment makes the host what the plan describes; by then its etcd
# is a member, and the flag that founds clusters has no effect any more.
#
#   name   the init server's host
#   other  the host of the server that answers
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
