# A NixOS system in a box: it holds what tells whether a container would restart, and the script that
# activates it.
{ name, generated }:
let
  cluster = builtins.fromJSON (builtins.readFile (generated + "/cluster.json"));
  host = cluster.hosts.${name};
  inherit (host.k3s) server agent;
  snippet = generated + "/../nixConfigs/${name}.nix";
  addresses = map (name: let host = cluster.hosts.${name}; in [ name host.ip host.k3s.server.ip or null host.k3s.agent.ip or null ])
    (builtins.attrNames cluster.hosts);
  text = if builtins.pathExists snippet then builtins.readFile snippet else "";
  inherit (cluster.network) versions;
  named = builtins.match "nixos-([0-9.]+)" versions.nixos;
  release = if named == null then "26.05" else builtins.head named;
  minor = builtins.match "[0-9]+\\.[0-9]+" (toString versions.k3s) != null;
  # what the pinned nixpkgs has
  patch = if builtins.pathExists (generated + "/../patch") then builtins.readFile (generated + "/../patch") else ".14+k3s1";
  k3sVersion = if minor then versions.k3s + patch else toString versions.k3s;
  kernel = derivation {
    name = "linux";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo $version > $out" ];
    version = if builtins.match ".*linux_latest.*" text == null then "6.6 of ${release}" else "6.12";
  };
  # the inside of the server's container: another one only if what it is made from has changed
  container = derivation {
    name = "nixos-system-${server.name}";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ ./container.sh ];
    PATH = "/usr/bin:/bin";
    madeFrom = builtins.toJSON [ server cluster.network ];
    inherit (server) ip;
    k3s = k3sVersion;
  };
  # the start script of the agent's unit, the same way
  start = derivation {
    name = "start-${agent.name}";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ ./start.sh ];
    PATH = "/usr/bin:/bin";
    madeFrom = builtins.toJSON [ agent cluster.network.versions ];
    agent = agent.name;
    # a tag cannot contain a plus sign
    tag = builtins.replaceStrings [ "+" ] [ "-" ] k3sVersion;
  };
in
derivation {
  name = "nixos-system-${name}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ ./build.sh ];
  PATH = "/usr/bin:/bin";
  switch = ./switch-to-configuration;
  hosts = builtins.toJSON addresses;
  row = builtins.toJSON (removeAttrs host [ "k3s" ]);
  inherit kernel;
  snippet = if builtins.match "(.|\n)*throw(.|\n)*" text == null then text else throw "the snippet of ${name}";
  inherit release;
  dbus = if release < "26.05" then "daemon" else "broker";
  inherit k3sVersion;
  serverName = server.name or "";
  server = if server == null then "" else builtins.toJSON [ server cluster.network ];
  container = if server == null then "" else container;
  agentName = agent.name or "";
  labels = if agent == null then "" else builtins.concatStringsSep "" (map (key: "${key}=${agent.labels.${key}}\n") (builtins.attrNames agent.labels));
  taints = if agent == null then "" else builtins.concatStringsSep "" (map (taint: taint + "\n") agent.taints);
  start = if agent == null then "" else start;
  agent = if agent == null then "" else builtins.toJSON [ agent cluster.network.versions ];
}
