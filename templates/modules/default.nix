# Everything that makes a NixOS system a host of the plan. A host's own file imports this, names the
# host, and lists the files of the project that belong to it. Colmena's part, deployment.nix, is imported by
# the hive: a host can also be evaluated without Colmena, for example for an installer image.
{
  imports = [
    ./agent.nix
    ./boot.nix
    ./common.nix
    ./file-systems.nix
    ./hosts-file.nix
    ./installation.nix
    ./k3s.nix
    ./machine.nix
    ./manifests.nix
    ./network.nix
    ./options.nix
    ./server.nix
    ./servers.nix
    ./ssh.nix
    ./users.nix
  ];
}
