# The init server's host as a server that joins the running cluster of another server, so that no second
# cluster is founded. The next deployment configures it as planned; by then its etcd is a member, and the
# flag that founds a cluster no longer has an effect.
#
#   name   the init server's host
#   other  the host of the running server
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
