# Two users: the administrator, a person, who gives a password to sudo; and `deploy`, which Colmena
# logs in as.
{ config, ... }:
let
  cfg = config.k3splan;
  admin = config.cluster.${cfg.host}.admin.name;
  places = import ./places.nix;
in
{
  users.users = {
    ${admin} = {
      isNormalUser = true;
      description = "Administrator";
      extraGroups = [ "wheel" ];
      hashedPasswordFile = places.passwd;
      openssh.authorizedKeys.keys = cfg.adminKeys;
    };

    # No password: only a key opens it.
    deploy = {
      isNormalUser = true;
      description = "Deployment";
      openssh.authorizedKeys.keys = cfg.deployKeys;
    };
  };

  systemd.tmpfiles.rules = [ (places.keptFromOthers places.secrets) ];

  # Colmena runs its commands by sudo, without a terminal to ask on. One of them is `sh -c`, so a
  # narrower rule would not be narrower.
  security.sudo.extraRules = [{
    users = [ "deploy" ];
    commands = [{ command = "ALL"; options = [ "NOPASSWD" ]; }];
  }];

  # It receives systems that this machine did not build, which Nix accepts from trusted users only.
  nix.settings.trusted-users = [ "root" "deploy" ];
}
