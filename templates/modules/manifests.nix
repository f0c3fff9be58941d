# Brings the plan's manifests to the server's container, as files in a folder that is mounted there:
# were they part of its configuration, an edited comment would restart a member of etcd.
{ config, lib, pkgs, ... }:
let
  inherit (lib) escapeShellArg;
  inherit (config.cluster.${config.k3splan.host}.k3s) server;
  folder = (import ./places.nix).manifests;

  source = ../manifests;
  names = lib.optionals (builtins.pathExists source) (lib.attrNames (builtins.readDir source));

  # The part before the first dot names the addon in k3s: it is unique, and safe in a store path.
  stored = name: builtins.path {
    path = source + "/${name}";
    name = "manifest-${lib.head (lib.splitString "." name)}";
  };
  install = name: ''install -m 0444 ${stored name} "$new"/${escapeShellArg name}'';
in
{
  # Files are renamed into place, so that k3s never reads half of one. They are copies: their time
  # shows k3s that they changed, and one dangling link would make it ignore the whole folder.
  system.activationScripts = lib.mkIf (server != null) {
    k3splan-manifests = ''
      (
        set -e
        shopt -s nullglob dotglob
        folder=${folder}
        new=$folder.new
        rm -rf "$new"
        mkdir -p "$folder" "$new"
        ${lib.concatMapStringsSep "\n  " install names}
        for file in "$folder"/*; do
          if [ ! -f "$new/''${file##*/}" ] || [ ! -f "$file" ]; then
            rm -rf "$file"
          fi
        done
        for file in "$new"/*; do
          ${pkgs.diffutils}/bin/cmp -s "$file" "$folder/''${file##*/}" || mv "$file" "$folder"
        done
        rm -rf "$new"
      )
    '';
  };
}
