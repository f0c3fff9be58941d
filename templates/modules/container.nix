# The NixOS container of a k3s server, from the inside.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkForce mkIf;
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  inherit (host.k3s) server;
  isInit = server.type == "init";
  places = import ./places.nix;
  # systemd-nspawn's name for it. Of a longer name than the kernel's 15 characters it keeps the first 11, and
  # four characters of a hash follow.
  longName = "mv-${host.interface}";
  link = if lib.stringLength longName > 15 then "${lib.substring 0 11 longName}????" else longName;

  chosen = "/run/k3splan/server";
  # k3s joins a cluster, or founds one, if it has no log of etcd
  joined = "[ -d /var/lib/rancher/k3s/server/db/etcd/member/wal ]";
  findServer = import ./find-server.nix {
    inherit (places.server) servers;
    inherit chosen joined;
    # a member finds the others in its log
    asks = "! ${joined}";
  };
  # A server that has lost its state must not found a second cluster, whoever starts it.
  refuseToFound = ''
    ${import ./answers.nix}
    if ! ${joined} && [ -z "$(find ${places.server.found} -mmin -60 2> /dev/null)" ]; then
      # without the list it is unknown, and k3s does not start
      mapfile -t addresses < ${places.server.servers}
      if server=$(firstThatAnswers "''${addresses[@]}"); then
        echo "this server has no state, and the one at $server answers: it would found a second cluster (see k3splan deploy)" >&2
        exit 1
      fi
    fi
  '';

  etcdCertificates = "/var/lib/rancher/k3s/server/tls/etcd";
  # how etcdctl reaches k3s's etcd: https://docs.k3s.io/advanced#using-etcdctl
  etcdctl = lib.mapAttrs' (name: lib.nameValuePair "ETCDCTL_${name}") {
    ENDPOINTS = "https://127.0.0.1:2379";
    CACERT = "${etcdCertificates}/server-ca.crt";
    CERT = "${etcdCertificates}/client.crt";
    KEY = "${etcdCertificates}/client.key";
  };

  k3s = import ./k3s-flags.nix { inherit lib; } {
    file = ../k3s/server.json;
    set = {
      node-name = server.name;
      node-ip = server.ip;
      advertise-address = server.ip;
      cluster-cidr = network.pod_cidr;
      service-cidr = network.service_cidr;
      # Only its own names: with those of the other servers, a new server would restart all of them.
      tls-san = [ server.name ]
        ++ lib.optional (network.domain != null) "${server.name}.${network.domain}"
        ++ network.tls_san;
    };
    # The server runs no agent and hence no pods: it can reach webhooks and aggregated APIs only through
    # the agents.
    default.egress-selector-mode = "cluster";
  };

  # The k3s module pastes flags unquoted into a line of a systemd unit.
  forUnit = flag:
    if builtins.match "[A-Za-z0-9_.:/=,@+-]+" flag != null then flag
    else lib.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON flag);
in
{
  imports = [ ./common.nix ];

  networking = {
    hostName = server.name;
    useNetworkd = true;
    # networkd enables resolved, which conflicts with the host's resolv.conf
    useHostResolvConf = mkForce false;
    # API, and etcd's clients and peers
    firewall.allowedTCPPorts = [ 6443 2379 2380 ];
  };

  # For `nixos-container root-login` and `machinectl login`. No ssh keys: a changed key would
  # restart the server.
  users.users.${host.admin.name} = {
    isNormalUser = true;
    description = "Administrator";
    extraGroups = [ "wheel" ];
    hashedPasswordFile = places.server.passwd;
  };

  # k3s has no command to remove an etcd member that is lost
  environment = {
    systemPackages = [ pkgs.etcd ];
    variables = etcdctl;
  };

  services.k3s = {
    enable = true;
    role = "server";
    disableAgent = true;
    clusterInit = isInit;
    # a string: a path would be copied to the store
    tokenFile = places.server.token;
    extraFlags = map forUnit k3s.flags;
    configPath = mkIf (k3s.rest != { }) (pkgs.writeText "k3s-server.json" (builtins.toJSON k3s.rest));
  };

  systemd = {
    network.networks."10-k3splan" = {
      # only this interface: a snippet may add others, with networks of their own
      matchConfig.Name = link;
      address = [ "${server.ip}/${toString network.netmask}" ];
      gateway = [ network.gateway ];
      networkConfig = {
        DHCP = "no";
        # the address is IPv4; waiting for an IPv6 router takes 13 s of each start
        IPv6AcceptRA = false;
      };
      linkConfig = mkIf (server.mac != null) { MACAddress = server.mac; };
    };

    # Connections that were not closed properly keep the network namespace of a stopped container alive for
    # minutes, and in it a macvlan with the same MAC address as its successor's. The kernel brings up only
    # one of the two, and networkd tries only once. So the interface is taken down after everything that
    # uses it has stopped. If the container was killed before that, its successor waits here.
    services.k3splan-lan = {
      description = "Interface of the k3s server";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-pre.target" ];
      before = [ "network-pre.target" "systemd-networkd.service" "k3s.service" "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      path = [ pkgs.iproute2 ];
      unitConfig.DefaultDependencies = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        TimeoutStartSec = "4min";
      };
      script = ''
        cd /sys/class/net
        link=$(echo ${link})
        tries=0
        until ${lib.optionalString (server.mac != null) ''ip link set dev "$link" address ${server.mac} && ''}ip link set dev "$link" up; do
          tries=$((tries + 1))
          if [ $tries = 150 ]; then
            # a server with another MAC address is better than none
            read -r uuid < /proc/sys/kernel/random/uuid
            ip link set dev "$link" address "02:''${uuid:0:2}:''${uuid:2:2}:''${uuid:4:2}:''${uuid:6:2}:''${uuid:9:2}"
            ip link set dev "$link" up
            break
          fi
          sleep 1
        done
      '';
      preStop = ''
        cd /sys/class/net
        ip link set dev ${link} down
      '';
    };

    # Started means running, not ready. A joining server becomes ready only after the init server, and a
    # server without a quorum never does. The container would time out and be killed, and the host's
    # activation would fail with it.
    services.k3s.serviceConfig = {
      Type = mkForce "exec";
      # the first one is written by preStart
      EnvironmentFile = mkForce (
        lib.optional (!isInit) "-${chosen}"
          ++ lib.optional ((config.services.k3s.environmentFile or null) != null) config.services.k3s.environmentFile
      );
    };
    services.k3s.path = [ pkgs.curl pkgs.etcd ];

    # Of a leader that just ends, the others wait 5 s for a word before they elect another one, and nothing is
    # written until then. k3s ends without handing over.
    services.k3s.preStop = ''
      ${lib.concatStringsSep "\n" (lib.mapAttrsToList (name: value: "export ${name}=${value}") etcdctl)}
      status() { timeout 5 etcdctl endpoint status "$@" 2> /dev/null || true; }
      IFS=', ' read -r _ self _ _ _ leads _ <<< "$(status)" || true
      if [ "$leads" = true ]; then
        while IFS=', ' read -r _ id _ _ _ _ learner _; do
          if [ "$id" != "$self" ] && [ "$learner" = false ] && timeout 5 etcdctl move-leader "$id"; then
            break
          fi
        done <<< "$(status --cluster)"
      fi
    '';

    # k3s copies its tokens into cred/passwd, and refuses to start if that copy is newer than the one in
    # etcd and differs from it. A start with the old token, between its rotation and the arrival of the
    # new one, leaves such a copy. k3s recreates the file if it is missing.
    services.k3s.preStart = ''
      passwd=/var/lib/rancher/k3s/server/cred/passwd
      read -r token < ${places.server.token} || true
      if [ -e $passwd ]; then
        while IFS=, read -r password user rest; do
          if [ "$user" = server ] && [ "$password" != "''${token##*:}" ]; then
            rm $passwd
            break
          fi
        done < $passwd
      fi
      ${if isInit then refuseToFound else findServer}
    '';

    # The mount below it creates this folder, readable by everyone. k3s would create it like this.
    tmpfiles.rules = [ "d /var/lib/rancher/k3s/server 0700 root root -" ];
  };
}
