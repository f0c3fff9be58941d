# For every host. The plan is at hand as config.cluster, own columns included.
{ config, pkgs, ... }:
{
  environment.systemPackages = [ pkgs.htop ];
  users.motd = ''
    ${config.networking.hostName}, slot ${config.cluster.${config.networking.hostName}.slot} of the rack
  '';
}
