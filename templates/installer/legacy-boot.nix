# A host that boots in BIOS mode, although the plan has another boot mode.
name: { lib, ... }: {
  cluster.${name}.boot = lib.mkForce "legacy";
}
