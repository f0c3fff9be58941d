# Evaluates hives for the Colmena that stands in for the real one: the system is the one of the box, and of
# deployment.* there is what k3splan itself looks at.
{ rawHive, ... }:
let
  generated = /. + builtins.getEnv "BOX_GENERATED";
  snippet = name: generated + "/../nixConfigs/${name}.nix";
  says = name: text: builtins.pathExists (snippet name) && builtins.match "(.|\n)*${text}(.|\n)*" (builtins.readFile (snippet name)) != null;
in
{
  nodes = builtins.mapAttrs
    (name: _: {
      config = {
        assertions = [ ];
        warnings = [ ];
        deployment = {
          targetUser = "deploy";
          buildOnTarget = says name "buildOnTarget = true";
          keys = { };
        };
        system.build.toplevel = import (/. + builtins.getEnv "BOX_DATA" + "/system.nix") { inherit name generated; };
      };
    })
    (removeAttrs rawHive [ "meta" "defaults" ]);
}
