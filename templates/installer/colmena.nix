# The options that Colmena gives every module of a hive, for evaluations without Colmena: what a snippet
# sets or reads below `deployment` must mean the same in an installer image.
{ lib, name, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };

  key = types.submodule ({ name, config, ... }: {
    freeformType = types.attrsOf types.anything;
    options = {
      name = option types.str name;
      text = option (types.nullOr types.str) null;
      keyFile = option (types.nullOr types.path) null // {
        # a path in a string would be copied to the store
        apply = file: if file == null then null else toString file;
      };
      keyCommand = option (types.nullOr (types.listOf types.str)) null;
      destDir = option types.path "/run/keys";
      path = option types.path "${config.destDir}/${config.name}";
      user = option types.str "root";
      group = option types.str "root";
      permissions = option types.str "0600";
      uploadAt = option (types.enum [ "pre-activation" "post-activation" ]) "pre-activation";
    };
  });
in
{
  options.deployment = mkOption {
    description = "How Colmena deploys the host.";
    default = { };
    type = types.submodule {
      # options of other versions of Colmena
      freeformType = types.attrsOf types.anything;
      options = {
        targetHost = option (types.nullOr types.str) name;
        targetPort = option (types.nullOr types.ints.unsigned) null;
        targetUser = option (types.nullOr types.str) "root";
        allowLocalDeployment = option types.bool false;
        buildOnTarget = option types.bool false;
        replaceUnknownProfiles = option types.bool true;
        privilegeEscalationCommand = option (types.listOf types.str) [ "sudo" "-H" "--" ];
        sshOptions = option (types.listOf types.str) [ ];
        tags = option (types.listOf types.str) [ ];
        keys = option (types.attrsOf key) { };
      };
    };
  };
}
