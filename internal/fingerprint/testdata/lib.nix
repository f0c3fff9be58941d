# Those functions of nixpkgs' library that the snippets use, as far as they use them.
rec {
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  mkIf = condition: value: if condition then value else { };
  mkMerge = values: values;
  mkOption = option: option;
  flatten = value: if builtins.isList value then builtins.concatMap flatten value else [ value ];
  genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
  attrByPath = path: default: set:
    if path == [ ] then set
    else if set ? ${builtins.head path} then attrByPath (builtins.tail path) default set.${builtins.head path}
    else default;
  concatStringsSep = builtins.concatStringsSep;
  splitString = separator: text: builtins.filter builtins.isString (builtins.split separator text);
  importJSON = file: builtins.fromJSON (builtins.readFile file);
  fileContents = file: builtins.readFile file;
  cleanSource = source: builtins.filterSource (path: type: true) source;
  path.append = base: piece: base + ("/" + piece);
  filesystem.listFilesRecursive = folder:
    let entries = builtins.readDir folder; in
    builtins.concatMap
      (name: if entries.${name} == "directory" then filesystem.listFilesRecursive (folder + "/${name}") else [ (folder + "/${name}") ])
      (builtins.attrNames entries);
  fileset.toSource = { root, fileset }: builtins.path { path = root; filter = path: type: path == toString fileset; };
}
