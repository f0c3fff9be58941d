# A nixpkgs for the lab: the one of the evaluation harness, with packages that are links to programs of
# Debian. settings.json, written beside this file: where the harness is, and the real nixpkgs.
args:
import (builtins.fromJSON (builtins.readFile ./settings.json)).harness
  (args // { overlays = [ (import ./overlay.nix) ] ++ args.overlays or [ ]; })
