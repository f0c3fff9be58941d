# The host's own address.
#
# A macvlan interface reaches its siblings, but never its parent. The containers have macvlans on the
# host's interface. The host has one, too, or it could not reach them.
{ config, lib, ... }:
let
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  isStatic = host.ip != null;
in
{
  networking = {
    hostName = host.name;

    # a generated hardware configuration enables DHCP on every interface
    useDHCP = false;

    macvlans = lib.mkIf isStatic {
      k3splan-lan = { inherit (host) interface; mode = "bridge"; };
    };

    interfaces = lib.mkMerge [
      # brought up; without an address if k3splan-lan has it
      { ${host.interface}.useDHCP = !isStatic; }
      (lib.mkIf isStatic {
        k3splan-lan = {
          useDHCP = false;
          ipv4.addresses = [{ address = host.ip; prefixLength = network.netmask; }];
        };
      })
    ];

    defaultGateway = lib.mkIf isStatic { address = network.gateway; interface = "k3splan-lan"; };
  };

  # A new nixpkgs changes this unit, too, and a new gateway changes network-setup.service, of which it is a
  # part in older releases. NixOS would stop it before the activation, together with all containers, and wait
  # for the slowest: minutes in which the host has no address, and the connection that deploys is lost. It is
  # to be restarted afterwards instead, and only if it has changed itself.
  systemd.services.k3splan-lan-netdev = lib.mkIf isStatic {
    stopIfChanged = false;
    partOf = lib.mkForce [ ];
  };

  # By default Linux answers ARP on any interface for any of its addresses: others would learn the parent
  # interface's MAC address for the host, and the firewall drops what arrives there. With slashes, because
  # the name of an interface may contain dots.
  boot.kernel.sysctl = lib.mkIf isStatic { "net/ipv4/conf/${host.interface}/arp_ignore" = 1; };
}
