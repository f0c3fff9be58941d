# For the server container on ulf: a shell for looking into etcd.
{ pkgs, ... }:
{
  environment.systemPackages = [ pkgs.etcd ];
}
