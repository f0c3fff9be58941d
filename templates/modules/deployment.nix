# Colmena's options: how the host is reached, by which tags, and which secrets it gets.
{ config, lib, ... }:
let
  inherit (lib) mkIf optional;
  cfg = config.k3splan;
  host = config.cluster.${cfg.host};
  inherit (host) target;
  inherit (host.k3s) agent server;
  places = import ./places.nix;

  # A command that prints an encrypted secret, run on the machine that deploys. k3splan puts its own path
  # into K3SPLAN; anyone who calls Colmena directly needs k3splan on PATH. A path that toString makes a
  # string is not copied to the store.
  show = entry: [
    "sh"
    "-c"
    ''exec "''${K3SPLAN:-k3splan}" "$@"''
    "k3splan"
    "--project"
    (toString ../..)
    "secrets"
    "show"
    "--raw"
    entry
  ];

  # uploaded to a file that only root reads
  upload = secret: path: {
    inherit (secret) keyFile;
    keyCommand = if secret.entry != null then show secret.entry else null;
    destDir = dirOf path;
    name = baseNameOf path;
    user = "root";
    group = "root";
    permissions = "0400";
  };
in
{
  deployment = {
    targetHost = if target.local then null else target.host;
    targetPort = if target.local then null else target.port;
    targetUser = "deploy";
    allowLocalDeployment = target.local;

    tags = optional (server != null) "k3s-server"
      ++ optional (server != null && server.type == "init") "k3s-init"
      ++ optional (agent != null) "k3s-agent"
      ++ host.tags;

    keys = lib.mkMerge [
      { k3splan-passwd = upload cfg.secrets.passwd places.passwd; }
      (mkIf (cfg.secrets ? ssh-host-key) {
        k3splan-ssh-host-key = upload cfg.secrets.ssh-host-key places.ssh.hostKey;
      })
      (mkIf (server != null) {
        k3splan-server-token = upload cfg.secrets.server-token places.server.token;
        k3splan-server-passwd = upload cfg.secrets.passwd places.server.passwd;
      })
      (mkIf (server != null && cfg.secrets ? agent-token) {
        k3splan-server-agent-token = upload cfg.secrets.agent-token places.server.agentToken;
      })
      (mkIf (agent != null) {
        # without a token of their own, agents join by that of the servers
        k3splan-agent-token = upload (cfg.secrets.agent-token or cfg.secrets.server-token) places.agent.token;
      })
    ];
  };
}
