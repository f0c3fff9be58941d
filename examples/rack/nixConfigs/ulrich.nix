# For ulrich alone: it exports its disks to the network of the rack.
{
  services.nfs.server = {
    enable = true;
    exports = "/srv 10.0.100.0/24(rw,no_subtree_check)";
  };
  networking.firewall.allowedTCPPorts = [ 2049 ];
}
