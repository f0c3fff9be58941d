# nixos/lib/eval-config.nix of the lab's nixpkgs: every system, and every container in it, gets module.nix.
args:
let settings = builtins.fromJSON (builtins.readFile ../../settings.json); in
import (settings.harness + "/nixos/lib/eval-config.nix")
  (args // { extraModules = args.extraModules or [ ] ++ [ ../../module.nix ]; })
