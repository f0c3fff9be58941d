# Where k3splan keeps things on a machine. Persistent: /run would be empty after a reboot, and a
# server or agent could not start again without an operator.
rec {
  root = "/var/lib/k3splan";

  # the administrator's password hash
  secrets = "${root}/secrets";
  passwd = "${secrets}/passwd";

  # Colmena makes the folders of what it uploads, readable by everyone.
  keptFromOthers = folder: "d ${folder} 0700 root root -";

  # the key by which the host proves to ssh who it is
  ssh = rec {
    folder = "${root}/ssh";
    hostKey = "${folder}/ssh_host_ed25519_key";
  };

  # Mounted into the server's container at the same place, and as a folder: secrets are replaced by
  # renaming, so a mount of one file would keep showing the old one.
  server = rec {
    folder = "${root}/server";
    token = "${folder}/token";
    agentToken = "${folder}/agent-token";
    passwd = "${folder}/passwd";
  };

  # mounted into the agent's container, as a folder for the same reason
  agent = rec {
    folder = "${root}/agent";
    token = "${folder}/token";
  };

  # filled at activation, mounted into the server's container
  manifests = "${root}/manifests";

  # what an agent keeps, one folder for each name that it ever had
  agents = "${root}/agents";
}
