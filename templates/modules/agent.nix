# The host's k3s agent: upstream's image in podman, with an address of its own in the LAN.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkIf;
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  inherit (host.k3s) agent;
  places = import ./places.nix;

  state = "${places.agents}/${agent.name}";

  # Used to join, and at each start: while it runs, the agent has a list of all servers.
  server = "${state}/server";
  findServer = import ./find-server.nix {
    inherit (places.agent) servers;
    chosen = server;
    joined = "[ -e ${state}/k3s/agent/client-kubelet.crt ]";
    asks = "true";
  };

  k3s = import ./k3s-flags.nix { inherit lib; } {
    file = ../k3s/agent.json;
    set = {
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
  # podman never changes a network. A label with this hash shows whether it has these options.
  networkHash = builtins.hashString "sha256" (toString networkOptions);
  networkHashOf = "podman network inspect --format '{{ index .Labels \"k3splan.hash\" }}' ${networkName}";
  # Without one, podman would choose another at each start, and neighbours would not find the address
  # until their ARP entry expires. The first byte means: unicast, locally administered.
  mac =
    if agent.mac != null then agent.mac
    else
      let digits = builtins.hashString "sha256" "${agent.name} ${agent.ip}"; in
      lib.concatStringsSep ":" ([ "02" ] ++ map (i: lib.substring (2 * i) 2 digits) (lib.range 0 4));

  unit = "podman-${agent.name}";
  runFolders = lib.concatMap
    (name: lib.concatMap (lib.splitString " ") (lib.toList (config.systemd.services.${name}.serviceConfig.RuntimeDirectory or [ ])))
    (lib.remove unit (lib.attrNames config.systemd.services));
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
          # The node's password. NixOS removes the container whenever it stops, and without the password
          # the servers would refuse the node from then on.
          "${state}/node:/etc/rancher/node"
          "${state}/k3s:/var/lib/rancher/k3s"
          # volumes of pods are mounted below it, and other pods must see these mounts
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
          "--env-file=${server}"
        ]
        ++ map (server: "--dns=${server}") config.networking.nameservers;
      };
    };

    # The plan refuses names of folders that every host has in /run. These are those of its services.
    assertions = [
      {
        assertion = !lib.elem agent.name runFolders;
        message = ''
          a service of ${host.name} has the folder /run/${agent.name}. NixOS keeps files of the k3s agent "${agent.name}" there, and removes the folder when the agent stops.
          Give the agent another name in the plan.
        '';
      }
    ];

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
        path = [ pkgs.curl ];
        # never on a network with the options of an earlier plan
        preStart = ''
          made=$(${networkHashOf} || true)
          if [ "$made" != ${networkHash} ]; then
            echo "podman's network ${networkName} is missing or outdated: see ${networkUnit}.service" >&2
            exit 1
          fi
          ${findServer}
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
      # The container cannot load modules: they are links into a store that it does not have.
      kernelModules = [ "overlay" "br_netfilter" "vxlan" "nf_conntrack" "macvlan" ];
      kernel.sysctl = {
        # cannot be set inside the container
        "net.netfilter.nf_conntrack_max" = lib.mkDefault 524288;
        # Every pod that watches files counts. Some releases of NixOS set these with mkDefault, and a
        # second mkDefault would conflict.
        "fs.inotify.max_user_instances" = lib.mkOverride 900 524288;
        "fs.inotify.max_user_watches" = lib.mkOverride 900 524288;
      };
    };
  };
}
