# The plan's data, as the options of cluster.nix.
let
  plan = import ./plan.nix;
in
{
  imports = [ ./cluster.nix ];

  cluster = plan.hosts;
  k3splan = { inherit (plan) network; };
}
