# As much of nixpkgs as Colmena itself needs. lib/ is nixpkgs' own, which the test puts here.
{ system ? builtins.currentSystem, overlays ? [ ], config ? { } }:
{
  inherit system overlays config;
  path = ./.;
  lib = import ./lib;
}
