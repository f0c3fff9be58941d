# The host's k3s agent: upstream's image in podman, with an address of its own in the LAN.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkIf;
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  inherit (host.k3s) agent;
  initServer = config.cluster.${network.init_server}.k3s.server;
  places = import ./places.nix;

  state = "${places.agents}/${agent.name}";

  k3s = import ./k3s-flags.nix { inherit lib; } {
    file = ../k3s/agent.json;
    set = {
      # An agent asks here once; then it knows all servers, and keeps them.
      server = "https://${initServer.ip}:6443";
      token-file = places.agent.token;
      node-name = agent.name;
      node-ip = agent.ip;
      node-label = lib.mapAttrsToList (key: value: "${key}=${value}") agent.labels;
      node-taint = agent.taints;
    };
  };
  configFile = pkgs.writeText "k3s-agent.json" (builtins.toJSON k3s.rest);

  device = "sys-subsystem-net-devices-${utils.escapeSystemdPath host.interface}.device";

  # the address of the subnet, octet by octet
  subnet =
    let
      power = n: if n == 0 then 1 else 2 * power (n - 1);
      masked = i: octet:
        let hostBits = lib.max 0 (lib.min 8 (8 * (i + 1) - network.netmask)); in
        toString (builtins.bitAnd (lib.toInt octet) (256 - power hostBits));
      octets = lib.imap0 masked (lib.splitString "." network.gateway);
    in
    "${lib.concatStringsSep "." octets}/${toString network.netmask}";

  networkName = "k3splan";
  networkOptions = [
    "--driver=macvlan"
    "--opt=parent=${host.interface}"
    "--opt=mode=bridge"
    "--subnet=${subnet}"
    "--gateway=${network.gateway}"
    "--disable-dns"
  ];
  # podman never changes a network: this label shows whether it was made with these options
  networkHash = builtins.hashString "sha256" (toString networkOptions);
  networkHashOf = "podman network inspect --format '{{ index .Labels \"k3splan.hash\" }}' ${networkName}";
  # Without one, podman would invent another at each start, and neighbours would not find the address
  # until they forget the old one. The first byte means: one machine, address given locally.
  mac =
    if agent.mac != null then agent.mac
    else
      let digits = builtins.hashString "sha256" "${agent.name} ${agent.ip}"; in
      lib.concatStringsSep ":" ([ "02" ] ++ map (i: lib.substring (2 * i) 2 digits) (lib.range 0 4));

  unit = "podman-${agent.name}";
  networkUnit = "k3splan-agent-network";
in
{
  config = mkIf (agent != null) {
    virtualisation.oci-containers = {
      backend = "podman";
      containers.${agent.name} = {
        inherit (config.k3splan.k3s) image;
        hostname = agent.name;
        # The address belongs to this network, not to the container as a whole: with a second network,
        # which a snippet may add, podman refuses --ip and --mac-address.
        networks = [ "${networkName}:ip=${agent.ip},mac=${mac}" ];
        cmd = [ "agent" ] ++ k3s.flags;

        volumes = [
          "${places.agent.folder}:${places.agent.folder}:ro"
          # Who it is. NixOS removes the container whenever it stops; without this password servers
          # would refuse its node for ever after.
          "${state}/node:/etc/rancher/node"
          "${state}/k3s:/var/lib/rancher/k3s"
          # volumes of pods are mounted below it and have to be seen by other pods
          "${state}/kubelet:/var/lib/kubelet:rshared"
          "${state}/cni:/var/lib/cni"
          "${state}/log:/var/log"
          "/run/booted-system/kernel-modules/lib/modules:/lib/modules:ro"
        ] ++ lib.optional (k3s.rest != { }) "${configFile}:/etc/rancher/k3s/config.yaml:ro";

        extraOptions = [
          "--privileged"
          "--tmpfs=/run"
          "--tmpfs=/var/run"
          "--pids-limit=-1"
          "--ulimit=nofile=1048576:1048576"
        ]
        ++ map (server: "--dns=${server}") config.networking.nameservers;
      };
    };

    systemd.tmpfiles.rules = [ (places.keptFromOthers places.agent.folder) ];

    systemd.services = {
      ${unit} = {
        # Not "requires": systemd does not retry a unit whose dependency failed. It does retry one that
        # fails itself, and each attempt starts the network's unit again. Nothing else may start this
        # unit: between stopping it and reading its new definition, switch-to-configuration would find
        # the old one running, and leave it.
        wants = [ "${networkUnit}.service" ];
        after = [ "${networkUnit}.service" ];
        startLimitIntervalSec = 0;
        # never on a network with the options of an earlier plan
        preStart = ''
          made=$(${networkHashOf} || true)
          if [ "$made" != ${networkHash} ]; then
            echo "podman's network ${networkName} is missing or outdated: see ${networkUnit}.service" >&2
            exit 1
          fi
        '';
        serviceConfig = {
          # a registry or a network that is away for a while is not a reason to give up
          Restart = lib.mkForce "always";
          RestartSec = "10s";
          StateDirectory = map (folder: "${lib.removePrefix "/var/lib/" state}/${folder}") [ "node" "k3s" "kubelet" "cni" "log" ];
          StateDirectoryMode = "0700";
        };
      };

      # Runs before each start of the agent.
      ${networkUnit} = {
        description = "Network of the k3s agent";
        # podman refuses a parent interface that does not exist
        wants = [ device ];
        after = [ device ];
        startLimitIntervalSec = 0;
        path = [ config.virtualisation.podman.package ];
        serviceConfig.Type = "oneshot";
        script = ''
          made=$(${networkHashOf} 2> /dev/null || true)
          if [ "$made" != ${networkHash} ]; then
            if podman network exists ${networkName}; then
              # with the container that is attached to it
              podman network rm --force ${networkName}
            fi
            podman network create ${lib.escapeShellArgs networkOptions} --label=k3splan.hash=${networkHash} ${networkName}
          fi
        '';
      };
    };

    boot = {
      # the container sees them, but cannot load them: they are links into a store that it lacks
      kernelModules = [ "overlay" "br_netfilter" "vxlan" "nf_conntrack" "macvlan" ];
      kernel.sysctl = {
        # cannot be set from within the container
        "net.netfilter.nf_conntrack_max" = lib.mkDefault 524288;
        # Every watching pod counts. Some releases of NixOS have a default here, which excludes
        # another one of the same strength.
        "fs.inotify.max_user_instances" = lib.mkOverride 900 524288;
        "fs.inotify.max_user_watches" = lib.mkOverride 900 524288;
      };
    };
  };
}
