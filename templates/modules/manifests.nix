# Passes the plan's manifests to the server's container as files in a folder that is mounted there. If
# they were part of its configuration, an edited comment would restart an etcd member.
{ config, lib, pkgs, ... }:
let
  inherit (lib) escapeShellArg;
  inherit (config.cluster.${config.k3splan.host}.k3s) server;
  folder = (import ./places.nix).manifests;

  source = ../manifests;
  names = lib.optionals (builtins.pathExists source) (lib.attrNames (builtins.readDir source));

  # k3s names the addon after what precedes the first dot: it is unique, and valid in a store path.
  stored = name: builtins.path {
    path = source + "/${name}";
    name = "manifest-${lib.head (lib.splitString "." name)}";
  };
  install = name: ''install -m 0444 ${stored name} "$new"/${escapeShellArg name}'';
in
{
  # Files are renamed into place, so that k3s never reads a partial one. They are copies: k3s notices a
  # change by a file's time, and a single dangling link would make it ignore the whole folder.
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
