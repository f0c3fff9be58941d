# Brings together what k3splan says to k3s, as flags, and what the user's k3s/server.yaml or
# k3s/agent.yaml says. Left alone, k3s lets a flag win over the file, so that the user's line has no
# effect, and nobody is told.
#
#   set        key -> value, or values: what the plan says. The user's values of a list are added;
#              a single value cannot be set in the file
#   default    key -> value: what the file may say otherwise
#   reserved   keys that belong to k3splan although they are no flags in `set`
#   file       the user's file, as JSON
#   source     its name for the user
# gives
#   flags      "--key=value"
#   rest       what is left of the file for k3s to read: key -> value
#   assertions
{ lib }:
{ set, default ? { }, reserved ? [ ], file, source }:
let
  inherit (lib) attrNames concatLists filterAttrs isList mapAttrsToList toList;

  user = builtins.fromJSON (builtins.readFile file);
  isSingle = _: value: !isList value;
  forbidden = reserved ++ attrNames (filterAttrs isSingle set);
  clashes = lib.filter (key: user ? ${key}) forbidden;

  values = key: value:
    if isList value then value ++ map toString (toList (user.${key} or [ ])) else [ value ];
  defaults = filterAttrs (key: _: !(user ? ${key})) default;
in
{
  flags = concatLists (mapAttrsToList
    (key: value: map (single: "--${key}=${single}") (values key value))
    (defaults // set));

  rest = removeAttrs user (attrNames set);

  assertions = map
    (key: {
      assertion = false;
      message = "${source} sets ${key}, which k3splan sets itself: remove it there, and see plans/k3s.csv and plans/network.yaml for what you want to change.";
    })
    clashes;
}
