# Keys open the machine, passwords do not, and root does not log in at all.
{ config, lib, ... }:
let
  host = config.cluster.${config.k3splan.host};
  inherit (host) target;
  # another target may be a router that forwards its port to the usual one here
  isDirect = host.ip != null && target.host == host.ip && target.port != null;
in
{
  services.openssh = {
    enable = true;
    ports = lib.mkIf isDirect (lib.mkDefault [ target.port ]);
    settings = {
      PermitRootLogin = "no";
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
    };
  };
}
