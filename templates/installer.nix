# Installer images: host -> ISO image, to be written to a stick. Copied by k3splan.
#
#   nix-build generated/installer.nix -A olaf
#
#   netinstall  the image carries how the host's system is made instead of the system itself
#   legacyBoot  the host starts in BIOS mode, whatever the plan says
{ sources ? import ./sources.nix, netinstall ? false, legacyBoot ? false }:
let
  plan = import ./modules/plan.nix;

  evaluate = system: modules: import (sources.nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit system modules;
    specialArgs = { inherit sources; };
  };

  # The host as the hive has it, but without Colmena's options, changed by further modules.
  hostWith = name: modules: evaluate plan.hosts.${name}.system
    ([ (./hosts + "/${name}.nix") ]
      ++ (if legacyBoot then [ (import ./installer/legacy-boot.nix name) ] else [ ])
      ++ modules);

  imageOf = name: host:
    let
      image = evaluate host.system [
        ./installer/image.nix
        {
          k3splan = {
            host = name;
            installer = {
              inherit netinstall;
              installed = hostWith name [ ];
              joining = other: hostWith name [ (import ./installer/joining.nix name other) ];
            };
          };
        }
      ];
    in
    image.config.system.build.isoImage // { inherit (image) config; };
in
builtins.mapAttrs imageOf plan.hosts
