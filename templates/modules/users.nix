# Two users: the administrator, a person with a password for sudo, and `deploy`, as which Colmena logs in.
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

    # without a password: login with a key only
    deploy = {
      isNormalUser = true;
      description = "Deployment";
      openssh.authorizedKeys.keys = cfg.deployKeys;
    };
  };

  systemd.tmpfiles.rules = [ (places.keptFromOthers places.secrets) ];

  # Colmena runs its commands with sudo and without a terminal. One of them is `sh -c`, so listing commands
  # would not restrict anything.
  security.sudo.extraRules = [{
    users = [ "deploy" ];
    commands = [{ command = "ALL"; options = [ "NOPASSWD" ]; }];
  }];

  # It receives systems that were built elsewhere, which Nix accepts only from trusted users.
  nix.settings.trusted-users = [ "root" "deploy" ];
}
