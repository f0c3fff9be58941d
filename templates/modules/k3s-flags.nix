# Brings together what the plan says to k3s and what the user's k3s/server.yaml or k3s/agent.yaml
# says. By itself, k3s prefers a flag to the file: the user's line would have no effect, without a
# message. (A single value that belongs to the plan cannot be in the file.)
#
#   set      key -> value, or values: what the plan says; the user's values of a list are added
#   default  key -> value: what the user may say otherwise
#   file     the user's file, as JSON
# gives
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
