# The k3s version: servers run the package of nixpkgs, agents the upstream image. Both follow the plan's
# versions.k3s, "1.35.1+k3s1" or "1.35".
{ config, lib, pkgs, sources, ... }:
let
  inherit (config.k3splan) network;
  host = config.cluster.${config.k3splan.host};
  inherit (host) k3s;

  wanted = network.versions.k3s;
  parts = lib.splitString "." wanted;
  minor = lib.concatStringsSep "." (lib.take 2 parts);
  isExact = lib.length parts > 2;

  attributeOf = version: "k3s_" + lib.replaceStrings [ "." ] [ "_" ] version;
  attribute = attributeOf minor;
  # a release that nixpkgs has dropped may still exist as a throw
  packageNamed = name: builtins.tryEval (pkgs.${name} or (throw "${name} is not in nixpkgs"));
  found = packageNamed attribute;

  # nixpkgs keeps minor versions that are past their end, and does not build them. They evaluate all the same.
  reasonsOf = package: package.meta.knownVulnerabilities or [ ];
  isRefused = package: reasonsOf package != [ ] && !(package.meta.available or true);
  available = lib.filter
    (name:
      let found = packageNamed name; in
      builtins.match "k3s_[0-9]+_[0-9]+" name != null && found.success && reasonsOf found.value == [ ])
    (lib.attrNames pkgs);
  versionOf = name: lib.replaceStrings [ "_" ] [ "." ] (lib.removePrefix "k3s_" name);

  has = ''
    ${if available == [ ] then "It has none that is supported: take another versions.nixos." else
      "It has ${lib.concatMapStringsSep ", " versionOf available}: set versions.k3s to one of these, or take another versions.nixos."} A running cluster takes one minor version after the other: k3splan upgrade.
  '';
  package =
    if !found.success then throw ''
      the plan asks for k3s ${wanted}, which nixpkgs (${network.versions.nixos}) does not have.
      ${has}''
    else if isRefused found.value then throw ''
      k3s ${minor} is past its end of life: nixpkgs (${network.versions.nixos}) marks it as insecure (${lib.concatStringsSep "; " (reasonsOf found.value)}).
      ${has}''
    else found.value;

  # Without permission. The name contains the patch release, so it permits exactly that package.
  unpermitted = import sources.nixpkgs { inherit (host) system; overlays = [ ]; config = { }; };
in
{
  k3splan.k3s = {
    inherit package;
    # One rule for servers and agents: the image of a version that servers cannot run is never taken. A tag
    # cannot contain a plus sign.
    image = "docker.io/rancher/k3s:v" + lib.replaceStrings [ "+" ] [ "-" ] (builtins.seq package (if isExact then wanted else package.version));
  };

  nixpkgs.config = lib.mkIf (network.versions.permit_ended != null) {
    permittedInsecurePackages = [ unpermitted.${attribute}.name ];
  };

  warnings =
    lib.optional ((k3s.server != null || k3s.agent != null) && isExact && package.version != wanted) ''
      the plan asks for k3s ${wanted}, nixpkgs (${network.versions.nixos}) has ${package.version}: servers run ${package.version}, agents ${wanted}.
      Set versions.k3s to ${package.version}, or to ${minor} to let agents follow.
    '';
}
