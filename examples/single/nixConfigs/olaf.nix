# For the one host.
{ config, ... }:
{
  environment.etc.room.text = config.cluster.olaf.room;
}
