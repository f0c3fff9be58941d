# The host's own address.
#
# A macvlan interface reaches its siblings, but never the interface below it. The containers have
# macvlans over the host's interface; so has the host itself, or it could not talk to them.
{ config, lib, ... }:
let
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  isStatic = host.ip != null;
in
{
  networking = {
    hostName = host.name;

    # a generated hardware configuration asks for leases on every interface
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

  # Left alone, Linux answers ARP on any interface for any of its addresses: others would learn the
  # address of the interface below for the host, and the firewall drops what arrives there. Slashes,
  # because a name may have dots.
  boot.kernel.sysctl = lib.mkIf isStatic { "net/ipv4/conf/${host.interface}/arp_ignore" = 1; };
}
