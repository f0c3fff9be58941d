// Package installer holds the tests of templates/installer/setup.sh, the script that installs a host
// from a boot stick. They run the script itself, as root, against loop devices, in a mount namespace
// of its own. The programs that it calls are real (sfdisk, mkfs, wipefs, blkid, lsblk, mount), but
// for those of NixOS, of udev and for powering off; see the stand-ins in machine_test.go.
package installer
