# Login with keys only, never with passwords, and not as root.
{ config, lib, ... }:
let
  # an installer image has none: its secrets are on the stick
  secrets = config.k3splan.secrets or { };
  places = import ./places.nix;
  host = config.cluster.${config.k3splan.host};
  inherit (host) target;
  # any other target may be a router that forwards its port to the usual one here
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
    # The key that k3splan made is uploaded before sshd starts. A host whose own key was adopted keeps it:
    # setting it here would replace it by a key that is not in known_hosts.
    hostKeys = lib.mkIf (secrets ? ssh-host-key) [{ path = places.ssh.hostKey; type = "ed25519"; }];
  };

  systemd.tmpfiles.rules = lib.mkIf (secrets ? ssh-host-key) [ (places.keptFromOthers places.ssh.folder) ];
}
