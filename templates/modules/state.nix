# The folders of secrets are root's alone. Colmena makes them when it uploads, and leaves them
# readable.
let
  places = import ./places.nix;
in
{
  systemd.tmpfiles.rules = map (folder: "d ${folder} 0700 root root -") [
    places.secrets
    places.server.folder
    places.agent.folder
  ];
}
