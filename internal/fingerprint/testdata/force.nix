# Evaluates each of snippets as NixOS would: calls modules, follows their imports, and copies every path
# that is a value (as a hash only, in Nix's read-only mode).
{ snippets, nixpkgs }:
let
  lib = import ./lib.nix;
  call = value: if builtins.isFunction value then value stubs else value;
  stubs = {
    inherit lib;
    name = "ulf";
    nodes = { ulf = { }; };
    config = { cluster.ulf = { name = "ulf"; ip = "10.0.100.3"; }; networking.hostName = "ulf"; };
    options = { };
    modulesPath = toString nixpkgs + "/nixos/modules";
    sources = { inherit nixpkgs; disko = nixpkgs + "/disko"; };
    pkgs = {
      inherit lib;
      path = nixpkgs;
      hello = "/nix/store/hello";
      vim = "/nix/store/vim";
      htop = "/nix/store/htop";
      callPackage = file: extra: call (import file);
      writeText = name: text: text;
      replaceVars = file: with': builtins.readFile file;
      runCommand = name: env: script: script;
      mkDerivation = attributes: attributes;
      fetchurl = attributes: "/nix/store/fetched";
      fetchFromGitHub = attributes: "/nix/store/fetched";
    };
  };
  load = import': call (if builtins.isPath import' || builtins.isString import' then import import' else import');
  force = value:
    if builtins.isPath value then "${value}"
    else if builtins.isList value then map force value
    else if builtins.isAttrs value then
      builtins.mapAttrs (name: inner: if name == "imports" then map (file: force (load file)) inner
        else if name == "keyFiles" then map builtins.readFile inner
        else if name == "keyFile" then toString inner
        else if name == "overlays" then map (overlay: force (overlay { } { })) inner
        else force inner) value
    else if builtins.isFunction value then null
    else value;
in
map (file: builtins.deepSeq (force (load file)) null) snippets
