# The plan as it was rendered. A file of its own because Nix evaluates an imported file once,
# however many hosts and containers ask for it.
builtins.fromJSON (builtins.readFile ../cluster.json)
