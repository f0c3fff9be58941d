# What else is wanted of a host's configuration, as data: name -> value. It must not contain a secret.
config: {
  release = config.system.nixos.release or null;
  machine = config.k3splan.machine or null;
}
