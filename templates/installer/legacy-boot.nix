# A host that boots in BIOS mode although its plan has EFI.
name: { lib, ... }: {
  cluster.${name}.boot = lib.mkForce "legacy";
}
