# Merges k3s's configuration from the plan with the user's k3s/server.yaml or k3s/agent.yaml. For k3s a
# flag overrides the file: without this, the user's line would silently have no effect. (A single value
# that belongs to the plan is refused in the file.)
#
#   set      key -> value or list, from the plan; the user's values are appended to a list
#   default  key -> value that the user may override
#   file     the user's file, as JSON
# returns
#   flags    "--key=value"
#   rest     what is left of the file for k3s to read: key -> value
{ lib }:
{ set, default ? { }, file }:
let
  user = builtins.fromJSON (builtins.readFile file);

  valuesOf = key: value: if lib.isList value then value ++ user.${key} or [ ] else [ value ];
  flagsOf = key: value: map (single: "--${key}=${single}") (valuesOf key value);
in
{
  flags = lib.concatLists (lib.mapAttrsToList flagsOf (removeAttrs default (lib.attrNames user) // set));
  rest = removeAttrs user (lib.attrNames set);
}
