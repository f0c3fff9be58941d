# A disko layout: ulrich's system and data are on one disk.
{
  disko.devices.disk.main = {
    type = "disk";
    device = "/dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0ULRICH";
    content = {
      type = "gpt";
      partitions = {
        ESP = {
          size = "512M";
          type = "EF00";
          content = {
            type = "filesystem";
            format = "vfat";
            mountpoint = "/boot";
          };
        };
        root = {
          size = "64G";
          content = {
            type = "filesystem";
            format = "ext4";
            mountpoint = "/";
          };
        };
        data = {
          size = "100%";
          content = {
            type = "filesystem";
            format = "ext4";
            mountpoint = "/srv";
          };
        };
      };
    };
  };
}
