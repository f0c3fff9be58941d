# Installer images: host -> ISO image, to be written to a stick. Copied by k3splan.
#
#   nix-build generated/installer.nix -A olaf
#
#   netinstall  the image contains how the host's system is made instead of the system itself
#   legacyBoot  the host boots in BIOS mode, whatever the plan says
#   problems    instead of the images: what would prevent the installation of each host
{ sources ? import ./sources.nix, netinstall ? false, legacyBoot ? false, problems ? false }:
let
  inherit (builtins) concatStringsSep mapAttrs;
  plan = import ./modules/plan.nix;

  evaluate = system: specialArgs: modules: import (sources.nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit system modules;
    specialArgs = { inherit sources; } // specialArgs;
  };

  # The host as Colmena evaluates it, by the same modules and arguments, changed by further modules.
  hostWith = name: modules:
    let
      host = evaluate plan.hosts.${name}.system { inherit name; nodes = nodes // { ${name} = host; }; }
        ([ ./installer/colmena.nix ./modules/deployment.nix (./hosts + "/${name}.nix") ] ++ modules);
    in
    host;
  nodes = mapAttrs (name: _: hostWith name [ ]) plan.hosts;

  firmware = name: if legacyBoot then [ (import ./installer/legacy-boot.nix name) ] else [ ];
  installed = name: hostWith name (firmware name);
  problemsOf = name: (installed name).config.k3splan.installation.problems;

  imageOf = name: host:
    let
      image = evaluate host.system { inherit name nodes; } [
        ./installer/image.nix
        {
          k3splan = {
            host = name;
            installer = {
              inherit netinstall;
              installed = installed name;
              joining = other: hostWith name (firmware name ++ [ (import ./installer/joining.nix name other) ]);
            };
          };
        }
      ];
    in
    # k3splan asks for the problems first; an image that was called for directly must not erase anything either
    if problemsOf name == [ ] then image.config.system.build.isoImage // { inherit (image) config; }
    else throw "a boot stick could not install ${name}:\n${concatStringsSep "\n" (map (p: "- ${p.file}: ${p.message}\n  hint: ${p.hint}") (problemsOf name))}";
in
mapAttrs (name: host: if problems then problemsOf name else imageOf name host) plan.hosts
