# For the hosts with the tag "storage".
{
  services.smartd.enable = true;
}
