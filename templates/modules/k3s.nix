# The k3s version: servers run the package of nixpkgs, agents the upstream image. Both follow the plan's
# versions.k3s, "1.31.14+k3s1" or "1.31".
{ config, lib, pkgs, ... }:
let
  inherit (config.k3splan) network;
  inherit (config.cluster.${config.k3splan.host}) k3s;

  wanted = network.versions.k3s;
  parts = lib.splitString "." wanted;
  isExact = lib.length parts > 2;

  attribute = "k3s_${lib.elemAt parts 0}_${lib.elemAt parts 1}";
  # a release that nixpkgs has dropped may still exist as a throw
  packageNamed = name: builtins.tryEval (pkgs.${name} or (throw "${name} is not in nixpkgs"));
  found = packageNamed attribute;
  available = lib.filter
    (name: builtins.match "k3s_[0-9]+_[0-9]+" name != null && (packageNamed name).success)
    (lib.attrNames pkgs);
  versionOf = name: lib.replaceStrings [ "_" ] [ "." ] (lib.removePrefix "k3s_" name);

  package =
    if found.success then found.value
    else throw ''
      the plan asks for k3s ${wanted}, which nixpkgs (${network.versions.nixos}) does not have.
      It has ${lib.concatMapStringsSep ", " versionOf available}: set versions.k3s to one of these, or take another versions.nixos.
    '';
in
{
  k3splan.k3s = {
    inherit package;
    # a tag cannot contain a plus sign
    image = "docker.io/rancher/k3s:v" + lib.replaceStrings [ "+" ] [ "-" ] (if isExact then wanted else package.version);
  };

  warnings =
    lib.optional ((k3s.server != null || k3s.agent != null) && isExact && package.version != wanted) ''
      the plan asks for k3s ${wanted}, nixpkgs (${network.versions.nixos}) has ${package.version}: servers run ${package.version}, agents ${wanted}.
      Set versions.k3s to ${package.version}, or to ${lib.concatStringsSep "." (lib.take 2 parts)} to let agents follow.
    '';
}
