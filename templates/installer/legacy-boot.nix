# A host that starts in BIOS mode though the plan says otherwise.
name: { lib, ... }: {
  cluster.${name}.boot = lib.mkForce "legacy";
}
