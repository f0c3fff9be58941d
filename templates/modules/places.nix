# Where k3splan keeps its files on a machine. They are persistent: /run is empty after a reboot, and a
# server or agent could not start without an operator.
rec {
  root = "/var/lib/k3splan";

  # the administrator's password hash
  secrets = "${root}/secrets";
  passwd = "${secrets}/passwd";

  # Colmena creates the folders of what it uploads readable by everyone.
  keptFromOthers = folder: "d ${folder} 0700 root root -";

  # the host's ssh key
  ssh = rec {
    folder = "${root}/ssh";
    hostKey = "${folder}/ssh_host_ed25519_key";
  };

  # Mounted into the server's container at the same place, and as a folder: secrets are replaced by
  # renaming, so a mount of a single file would keep the old one.
  server = rec {
    folder = "${root}/server";
    token = "${folder}/token";
    agentToken = "${folder}/agent-token";
    passwd = "${folder}/passwd";
    # the addresses of the other servers
    servers = "${folder}/servers";
    # lets an init server without a state found a cluster although another server answers
    found = "${folder}/found";
  };

  # mounted into the agent's container, as a folder for the same reason
  agent = rec {
    folder = "${root}/agent";
    token = "${folder}/token";
    # the addresses of all servers
    servers = "${folder}/servers";
  };

  # a question of the deployment that is under way
  guard = "/run/k3splan/guard";

  # filled at activation, mounted into the server's container
  manifests = "${root}/manifests";

  # the agents' state, one folder for each name that an agent ever had
  agents = "${root}/agents";
}
