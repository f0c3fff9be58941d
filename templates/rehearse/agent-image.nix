# The image of the agents, from the k3s of nixpkgs that the servers run: a virtual machine of a test reaches no
# registry.
#
#   file     the image, under the name by which the plan calls it
#   volumes  the images of k3s's own pods, where k3s looks for them
{ lib, pkgs, image, package }:
let
  name = lib.head (lib.splitString ":" image);
  tag = lib.removePrefix "${name}:" image;
  airgap = package.airgap-images or package.airgapImages or null;
in
{
  file = pkgs.dockerTools.buildLayeredImage {
    inherit name tag;
    contents = [ package pkgs.bashInteractive pkgs.cacert pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.iptables pkgs.kmod pkgs.util-linux ];
    extraCommands = ''
      mkdir -p -m 1777 tmp
      mkdir -p etc/rancher run var/lib/rancher/k3s var/log
      echo root:x:0:0::/root:/bin/sh > etc/passwd
      echo root:x:0: > etc/group
    '';
    config = {
      Entrypoint = [ "${package}/bin/k3s" ];
      Cmd = [ "agent" ];
      Env = [
        "PATH=/var/lib/rancher/k3s/data/cni:/bin:/sbin"
        "CRI_CONFIG_FILE=/var/lib/rancher/k3s/agent/etc/crictl.yaml"
        "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
      ];
    };
  };
  # k3s knows an archive by the end of its name
  volumes = lib.optional (airgap != null)
    "${airgap}:/var/lib/rancher/k3s/agent/images/${airgap.name or "k3s-airgap-images.tar.zst"}:ro";
}
