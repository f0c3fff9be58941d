# The host's own network on the stick, as the host's configuration defines it: with its bonds, VLANs and
# bridges, under the names that its interfaces have there.
#
# Definitions are taken over instead of values: a value holds everything that NixOS derives from it, which
# is derived here again. They replace those of the image.
{ config, lib, options, ... }:
let
  inherit (lib) attrByPath filter filterAttrs genAttrs hasInfix hasPrefix mkForce mkMerge;
  inherit (config.k3splan.installer) installed;

  # without defaults, which the image has too
  definitions = path:
    let option = attrByPath path null installed.options; in
    if option == null || option.highestPrio >= (lib.mkOptionDefault null).priority then [ ] else map mkForce option.definitions;
  # of those that this release of NixOS has
  takeOver = path: names:
    genAttrs (filter (name: attrByPath (path ++ [ name ]) null options != null) names)
      (name: mkMerge (definitions (path ++ [ name ])));
in
{
  networking = takeOver [ "networking" ] [
    "bonds"
    "bridges"
    "defaultGateway"
    "defaultGateway6"
    "domain"
    "enableIPv6"
    "fooOverUDP"
    "greTunnels"
    "hostId"
    "hostName"
    "interfaces"
    "ipips"
    "localCommands"
    "macvlans"
    "nameservers"
    "search"
    "sits"
    "useDHCP"
    "useNetworkd"
    "usePredictableInterfaceNames"
    "vlans"
    "vswitches"
    "wlanInterfaces"
  ] // {
    # images of some releases start it, and it would take leases on interfaces that are part of others
    networkmanager.enable = mkForce false;
  };

  systemd.network = takeOver [ "systemd" "network" ] [ "enable" "links" "netdevs" "networks" ];

  # names of interfaces
  services.udev.extraRules = mkMerge (filter (hasInfix "\"net\"") installed.options.services.udev.extraRules.definitions);
  boot = {
    kernelParams = filter (parameter: hasPrefix "net.ifnames=" parameter || hasPrefix "biosdevname=" parameter) installed.config.boot.kernelParams;
    kernel.sysctl = lib.mapAttrs (_: mkForce) (filterAttrs (name: _: hasPrefix "net" name) installed.config.boot.kernel.sysctl);
    # how drivers are loaded
    extraModprobeConfig = mkMerge (definitions [ "boot" "extraModprobeConfig" ]);
  };
}
