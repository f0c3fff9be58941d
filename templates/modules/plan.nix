# The plan as it was rendered. A file of its own, because Nix evaluates an imported file only once for all
# hosts and containers.
builtins.fromJSON (builtins.readFile ../cluster.json)
