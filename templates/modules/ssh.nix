# Keys open the machine, passwords do not, and root does not log in at all.
{ config, lib, ... }:
let
  # an installer image has none: what it needs is on the stick
  secrets = config.k3splan.secrets or { };
  places = import ./places.nix;
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
    # The key that k3splan made is uploaded before sshd starts with it. A host whose own key was
    # adopted keeps that: here it would be replaced by one that nobody knows.
    hostKeys = lib.mkIf (secrets ? ssh-host-key) [{ path = places.ssh.hostKey; type = "ed25519"; }];
  };

  systemd.tmpfiles.rules = lib.mkIf (secrets ? ssh-host-key) [ (places.keptFromOthers places.ssh.folder) ];
}
