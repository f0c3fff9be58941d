# A rehearsal: hosts of the plan as virtual machines on one LAN, and the script that waits for them to become
# healthy. A NixOS test; what is known about it is in ../rehearsal.json. Copied by k3splan.
#
#   nix-build generated/rehearse                      runs it
#   nix-build generated/rehearse -A driverInteractive a driver for looking into it: result/bin/nixos-test-driver
#
#   to  the rehearsal of another plan, which the hosts are brought to when they are healthy
{ sources ? import ../sources.nix
, pkgs ? import sources.nixpkgs { overlays = [ ]; config = { }; }
, to ? null
}:
let
  inherit (builtins) elem filter fromJSON listToAttrs readFile toJSON;
  rehearsal = fromJSON (readFile ../rehearsal.json);

  moduleOf = name: {
    imports = [ ../installer/colmena.nix ../modules/deployment.nix (../hosts + "/${name}.nix") ./vm.nix ];
  };
  namesIn = plan: map (host: host.name) plan.hosts;
  attrsOf = value: names: listToAttrs (map (name: { inherit name; value = value name; }) names);

  own = namesIn rehearsal.plan;
  added = if to == null then [ ] else filter (name: !(elem name own)) (namesIn to.rehearsal.plan);

  data = {
    inherit (rehearsal) plan;
    change = if to == null then null else {
      inherit (to.rehearsal) plan waves;
      systems = attrsOf (name: "${to.nodes.${name}.system.build.toplevel}") (namesIn to.rehearsal.plan);
    };
  };

  test = pkgs.testers.runNixOSTest {
    name = "k3splan-rehearsal";
    nodes = attrsOf moduleOf own // attrsOf (name: to.moduleOf name) added;
    # as Colmena does it
    node.specialArgs = { inherit sources; };
    # a snippet may set nixpkgs.*
    node.pkgsReadOnly = false;
    # in seconds
    globalTimeout = 2 * 60 * 60;
    # a JSON text within a JSON text is a literal of Python, too
    testScript = ''
      import json
      from typing import Any

      rehearsal: dict[str, Any] = json.loads(${toJSON (toJSON data)})
    '' + readFile ./script.py;
  };
in
test // { inherit moduleOf rehearsal; }
