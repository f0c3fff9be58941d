# Evaluates hosts of a hive one after the other, as Colmena does, and says of each what is known then: a line of JSON
# behind a mark. What a host has taken in memory is free again when the next one begins.
{ evaluator, hive, hosts, mark }:
let
  inherit (builtins) all attrNames filter foldl' fromJSON isFunction mapAttrs seq toJSON trace;
  code = name: import (/. + evaluator + "/${name}.nix");
  evaluate = code "eval";
  colmenaOptions = code "options";
  colmenaModules = code "modules";
  rawHive = let hive' = import (/. + hive); in if isFunction hive' then hive' { } else hive';
  evaluated = _: evaluate { inherit rawHive colmenaOptions colmenaModules; };

  say = value: trace (mark + toJSON value);
  # the rest of the message is about this host
  of = name:
    let
      inherit ((evaluated null).nodes.${name}) config;
      inherit (config) deployment warnings;
      inherit (config.system.build) toplevel;
      failedAssertions = map (a: a.message) (filter (a: !a.assertion) config.assertions);
    in
    {
      inherit name failedAssertions warnings;
      # a text is a secret: it stays here
      deployment = deployment // { keys = mapAttrs (_: key: removeAttrs key [ "text" ]) deployment.keys; };
      hasTexts = !all (name: deployment.keys.${name}.text == null) (attrNames deployment.keys);
    }
    // (if failedAssertions != [ ] then { } else { derivation = toplevel.drvPath; system = toplevel.outPath; })
    // { metadata = import ./metadata.nix config; };
in
seq (attrNames (evaluated null).nodes) (say { ready = true; }
  (foldl' (last: name: seq last (say (of name) null)) null (fromJSON hosts)))
