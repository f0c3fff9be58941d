# What a host and its server container have in common.
{ config, lib, ... }:
let
  inherit (lib) mkDefault;
  inherit (config.k3splan) network;
in
{
  imports = [ ./data.nix ];

  networking = {
    domain = mkDefault network.domain;
    # a default, so that a list in a snippet replaces these instead of being added to them
    nameservers = mkDefault network.nameservers;
  };

  time.timeZone = mkDefault network.timezone;

  # Users and passwords are those of the plan: with mutable users, a changed password would never
  # reach a machine that has the user already.
  users.mutableUsers = false;

  # The release whose data formats stateful services use. It stays what it was when the machine was
  # installed, so it does not follow versions.nixos.
  system.stateVersion = mkDefault config.cluster.${config.k3splan.host}.state_version;
}
