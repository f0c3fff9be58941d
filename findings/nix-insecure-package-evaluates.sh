#!/usr/bin/env bash
# Nix 2.8.0 and 2.26.3 with nixpkgs 20.09: a package with meta.knownVulnerabilities, which nixpkgs refuses to build.
#
# Guess:     builtins.tryEval shows whether a package can be used: it is false for one that is removed (a throw), so
#            it is false for one that is refused.
# Behaviour: it is true, and name, version and meta evaluate as well. Only drvPath and outPath throw. meta.available
#            is false. A configuration that takes nothing but the version (the tag of an image, for instance) gets
#            the insecure one without a word.
# Seen:      { available = false; derivation = false; package = true; removed = false; version = "2.10"; }
# Needs nix-instantiate and a nixpkgs: NIX_PATH=nixpkgs=FOLDER. Fails if the behaviour changes.
set -euo pipefail
nix-instantiate --version
nix-instantiate --eval --strict -E '
  let
    ended = final: prev: {
      ended = prev.hello.overrideAttrs (old: { meta = old.meta // { knownVulnerabilities = [ "past its end of life" ]; }; });
      removed = throw "removed";
    };
    pkgs = import <nixpkgs> { config = { }; overlays = [ ended ]; };
    works = value: (builtins.tryEval value).success;
  in {
    package = works pkgs.ended;
    removed = works pkgs.removed;
    derivation = works pkgs.ended.drvPath;
    inherit (pkgs.ended) version;
    inherit (pkgs.ended.meta) available;
  }' 2> /dev/null | tee /dev/stderr | grep -qF 'available = false; derivation = false; package = true; removed = false;'
