package stick_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/stick"
)

const (
	large    = 1536 * mib // holds an EFI partition and some more
	small    = 64 * mib
	olafDisk = "S4EWNX0M700101"
)

func olafStick(wipe bool) stick.Data {
	return stick.Data{Host: "olaf", Wipe: wipe, Secrets: secrets}
}

func TestBlankDisk(t *testing.T) {
	m := newMachine(t)
	d := m.disk(large, serial(olafDisk)...) // the plan has it in lower case
	other := m.disk(small, serial("OTHER")...)
	untouched := other.state()
	s := m.stick(olafStick(false))
	m.installs()

	d.rescan()
	table := d.run("sfdisk", "--dump", d.device)
	require.Contains(t, table, "label: gpt")
	require.Regexp(t, `p1 : .*size= *2097152, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B.*name="boot"`, table)
	require.Regexp(t, `p2 : .*name="nixos"`, table)
	blkid := func(partition string) string { return d.run("blkid", "-p", "-o", "export", d.device+partition) }
	require.Regexp(t, `(?s)LABEL=boot.*TYPE=vfat`, blkid("p1"))
	require.Regexp(t, `(?s)LABEL=nixos.*TYPE=ext4`, blkid("p2"))
	require.Equal(t, untouched, other.state(), "the other disk")

	require.Equal(t, []string{"--root", "/mnt", "--system", m.settings["path"].(string), "--no-root-passwd", "--no-channel-copy"},
		strings.Split(strings.TrimSpace(m.read("nixos-install")), "\n"))
	// before nixos-install, because the activation reads them
	placed := m.read("placed")
	for _, line := range []string{
		"k3splan 755 0:0", "k3splan/secrets 700 0:0", "k3splan/secrets/passwd 400 0:0", "k3splan/server 700 0:0",
		"k3splan/server/passwd 400 0:0", "k3splan/server/token 400 0:0", "k3splan/ssh 700 0:0", "k3splan/ssh/ssh_host_ed25519_key 400 0:0",
		"nixos/hardware-configuration.nix 644 0:0",
	} {
		require.Contains(t, "\n"+placed, "\n"+line+"\n")
	}
	require.Regexp(t, `^/mnt ext4\n/mnt/boot \w+\n$`, m.read("mounted"))
	token, err := d.content(2, "var/lib/k3splan/server/token")
	require.NoError(t, err)
	require.Equal(t, "the token\n", token)
	_, err = d.content(2, ".k3splan-unfinished")
	require.Error(t, err)
	log, err := d.content(2, "var/log/k3splan-setup.log")
	require.NoError(t, err)
	require.NotContains(t, log, "the token")

	require.Contains(t, m.read("systemctl"), "poweroff")
	require.Contains(t, s.recorded("installed"), "machine")
	require.Contains(t, s.recorded("history"), "exit status 0")
	require.Contains(t, s.recorded("setup.log"), "ERASING "+d.device)

	// again: now the disk is not blank
	require.NoError(t, os.Remove(filepath.Join(m.dir, "systemctl")))
	m.refuses("is not blank, and erasing it is not allowed", []*disk{d, other})
	require.Contains(t, s.recorded("history"), "exit status 3")
	require.Contains(t, s.recorded("setup.log"), "is not blank", "the reason is on the stick")
}

func TestDiskThatIsNotBlank(t *testing.T) {
	for name, fill := range map[string]func(d *disk){
		"a file system":                          func(d *disk) { d.run("mkfs.ext4", "-q", "-F", d.device) },
		"partitions":                             func(d *disk) { d.partition("label: gpt\nsize=8MiB\n") },
		"an empty partition table":               func(d *disk) { d.partition("label: dos\n") },
		"a damaged partition table, like wipefs": func(d *disk) { d.partition("label: gpt\nsize=8MiB\n"); d.put(512, "xxxxxxxx") },
		"something unknown at the beginning":     func(d *disk) { d.put(700*1024, "encrypted") },
		"something unknown at the end":           func(d *disk) { d.put(large-5000, "x") },
		"swap":                                   func(d *disk) { d.run("mkswap", d.device) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			d := m.disk(large, serial(olafDisk)...)
			s := m.stick(olafStick(false))
			fill(d)
			m.refuses(d.device+" is not blank", []*disk{d})
			require.Empty(t, s.recorded("wiped"))
		})
	}
}

func TestPermissionIsUsedUp(t *testing.T) {
	for name, blank := range map[string]bool{"needed": false, "not needed": true} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			d := m.disk(large, serial(olafDisk)...)
			s := m.stick(olafStick(true))
			if !blank {
				d.partition("label: gpt\nsize=8MiB\nsize=9MiB\n")
				d.run("mkfs.ext4", "-q", "-F", d.device+"p2")
			}
			m.installs()
			require.Regexp(t, `^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, machine .* with .*:`, s.recorded("wiped"), "the time and the machine")
			require.NoError(t, os.Remove(filepath.Join(m.dir, "systemctl")))
			output := m.refuses("is not blank", []*disk{d})
			require.Contains(t, output, "permission to erase is used up")
			require.Contains(t, output, "unplug the stick")
		})
	}
	t.Run("a stick that cannot be written to", func(t *testing.T) {
		m := newMachine(t)
		d := m.disk(large, serial(olafDisk)...)
		d.run("mkfs.ext4", "-q", "-F", d.device)
		m.stick(olafStick(true), "--read-only")
		m.refuses("cannot be marked as used", []*disk{d})
	})
}

func TestPermissionOfAPersonAtTheMachine(t *testing.T) {
	for name, allow := range map[string]func(m *machine) []string{
		"kernel parameter": func(m *machine) []string { m.cmdline += " k3splan.wipe quiet"; return nil },
		"command line":     func(*machine) []string { return []string{"--wipe"} },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			d := m.disk(large, serial(olafDisk)...)
			m.stick(olafStick(false))
			d.partition("label: dos\nsize=8MiB\n")
			m.installs(allow(m)...)
		})
	}
	for _, parameter := range []string{"k3splan.wipe=0", "k3splan-wipe", "xk3splan.wipe"} {
		m := newMachine(t)
		m.cmdline += " " + parameter
		d := m.disk(large, serial(olafDisk)...)
		d.put(0, "data")
		m.refuses("is not blank", []*disk{d})
	}
}

func TestWhichDisk(t *testing.T) {
	virtio := func(serial string) []string { return []string{"ID_SERIAL=" + serial} }
	// lsblk shows the first of these that a disk has
	sas := []string{"ID_BUS=scsi", "ID_SERIAL=35000c500a1b2c3d4", "ID_SERIAL_SHORT=5000c500a1b2c3d4", "ID_SCSI_SERIAL=S0K1ABCD0000Z123",
		"ID_WWN=0x5000c500a1b2c3d4"}
	sg3 := append([]string{"SCSI_IDENT_SERIAL=beaf 11"}, sas...)
	long := "abcdefghij0123456789xyz"
	for name, test := range map[string]struct {
		plan   string
		disks  [][]string
		reason string // "" if the first disk is taken
	}{
		"the other case":             {"s4ewnx0m700101", [][]string{serial("S4EWNX0M700101"), serial("X")}, ""},
		"NVMe":                       {"eui-1", [][]string{{"ID_SERIAL=Model_EUI-1_1", "ID_SERIAL_SHORT=EUI-1"}, {"ID_SERIAL_SHORT=eui-12"}}, ""},
		"virtio":                     {"disk-1", [][]string{virtio("DISK-1")}, ""},
		"virtio keeps 20 characters": {long, [][]string{virtio(long[:20])}, ""},
		"only virtio does so":        {long, [][]string{serial(long[:20])}, "no disk has the serial"},
		"a part of the serial":       {"700101", [][]string{serial(olafDisk)}, "no disk has the serial 700101"},
		"a part of the long serial":  {"samsung_ssd", [][]string{serial(olafDisk)}, "no disk has the serial"},
		"the long serial":            {"samsung_ssd_s4ewnx0m700101", [][]string{serial(olafDisk), serial("OTHER")}, ""},
		"SAS, as lsblk shows it":     {"s0k1abcd0000z123", [][]string{sas, serial(olafDisk)}, ""},
		"SAS, the short serial":      {"5000c500a1b2c3d4", [][]string{sas, serial(olafDisk)}, ""},
		"SAS, the long serial":       {"35000c500a1b2c3d4", [][]string{sas, serial(olafDisk)}, ""},
		"SAS, the WWN":               {"0x5000c500a1b2c3d4", [][]string{sas, serial(olafDisk)}, ""},
		"SAS, a part of the WWN":     {"0x5000c500a1b2", [][]string{sas}, "no disk has the serial"},
		"sg3_utils, with a blank":    {"beaf 11", [][]string{sg3, serial(olafDisk)}, ""},
		"sg3_utils, as udev writes":  {"beaf_11", [][]string{sg3, serial(olafDisk)}, ""},
		"two disks of one WWN":       {"0x5000c500a1b2c3d4", [][]string{sas, sas}, "several disks have the serial"},
		"a pattern":                  {"s4.*", [][]string{serial(olafDisk)}, "no disk has the serial"},
		"none":                       {"s4ewnx0m700101", [][]string{serial("OTHER"), nil}, "is this olaf?"},
		"two":                        {"s4ewnx0m700101", [][]string{serial(olafDisk), serial("s4ewnx0m700101")}, "several disks have the serial"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.settings["serial"] = test.plan
			var disks []*disk
			for _, properties := range test.disks {
				disks = append(disks, m.disk(large, properties...))
			}
			if test.reason != "" {
				m.refuses(test.reason, disks)
				return
			}
			status, output := m.setup("--check")
			require.Equal(t, done, status, output)
			require.Contains(t, output, "ERASING "+disks[0].device+":")
			require.Equal(t, 1, strings.Count(output, "ERASING"))
		})
	}
}

func TestDisksInUse(t *testing.T) {
	m := newMachine(t)
	d := m.disk(small, serial(olafDisk)...)
	over := m.plug(d.device, []string{"--offset", "1048576"})
	m.refuses("is in use by "+over.device, []*disk{d}, "--wipe")

	m = newMachine(t)
	m.stick(olafStick(true))
	m.settings["serial"] = "stick"
	m.refuses("is the disk that this system was booted from", nil, "--wipe")

	m = newMachine(t)
	file := filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, small))
	m.refuses("is read-only", []*disk{m.plug(file, []string{"--read-only"}, serial(olafDisk)...)}, "--wipe")

	// once it is copied to memory (copytoram), the medium is known by its label only: the kernel's command line
	// does not contain it with systemd's stage 1, and is not asked where it does
	m = newMachine(t)
	require.NotContains(t, m.cmdline, "root=")
	d = m.disk(small, serial(olafDisk)...)
	d.run("mkfs.ext4", "-q", "-F", "-L", "k3splan-olaf", d.device)
	m.refuses("is the disk that this system was booted from", []*disk{d}, "--wipe")

	m = newMachine(t)
	d = m.disk(small, serial(olafDisk)...)
	d.run("mkfs.ext4", "-q", "-F", d.device)
	mounted := t.TempDir()
	d.run("mount", "-o", "ro", d.device, mounted)
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", mounted).Run()) })
	m.refuses("is in use at "+mounted, []*disk{d}, "--wipe")
}

// A program that fails does not count as an empty answer.
func TestProgramsThatFail(t *testing.T) {
	for program, reason := range map[string]string{"wipefs": "wipefs could not read", "cmp": "cannot be read", "blkid": "blkid could not read"} {
		m := newMachine(t)
		d := m.disk(large, serial(olafDisk)...)
		before := d.state()
		m.write("bin/"+program, "#!/bin/sh\nexit 9\n")
		status, output := m.setup()
		require.NotEqual(t, done, status, output)
		require.Contains(t, output, reason)
		require.Contains(t, output, "Nothing was changed")
		require.Equal(t, before, d.state())
		require.Empty(t, m.read("nixos-install"))
	}
}

func TestWrongMachineOrStick(t *testing.T) {
	blank := func(m *machine) []*disk { return []*disk{m.disk(large, serial(olafDisk)...)} }

	m := newMachine(t)
	m.settings["mac"] = "52:54:00:12:34:56"
	m.refuses("this is another machine", blank(m))

	m = newMachine(t)
	m.efi = false
	m.refuses("booted in BIOS mode, and olaf boots by EFI", blank(m))

	m = newMachine(t)
	m.settings["boot"] = "legacy"
	m.refuses("booted by EFI, and olaf boots in BIOS mode", blank(m))

	m = newMachine(t)
	m.stick(stick.Data{Host: "ulf"})
	m.refuses("the stick was made for ulf", blank(m))

	m = newMachine(t)
	m.stick(olafStick(false))
	m.stick(olafStick(true))
	m.refuses("several sticks", blank(m))

	m = newMachine(t)
	m.settings["path"] = "/nix/store/missing"
	m.refuses("the image does not contain the system", blank(m))
}

func TestMACOfThisMachine(t *testing.T) {
	files, err := filepath.Glob("/sys/class/net/*/address")
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if mac := strings.TrimSpace(string(content)); err == nil && mac != "" && mac != "00:00:00:00:00:00" {
			m := newMachine(t)
			m.settings["mac"] = mac
			m.disk(large, serial(olafDisk)...)
			m.installs()
			return
		}
	}
	t.Skip("SKIP: no interface here has an address")
}

func TestLegacy(t *testing.T) {
	m := newMachine(t)
	m.efi = false
	m.settings["boot"], m.settings["grub"], m.settings["bootLoader"] = "legacy", "grub-stand-in", "grub"
	m.settings["fileSystems"] = []any{map[string]any{"mountPoint": "/", "device": "/dev/disk/by-label/nixos"}}
	d := m.disk(small, serial(olafDisk)...)
	m.installs()
	table := d.run("sfdisk", "--dump", d.device)
	require.Contains(t, table, "label: dos")
	require.Regexp(t, `p1 : start= *2048, .*type=83, bootable`, table)
	require.Equal(t, "--target=i386-pc --boot-directory=/mnt/boot "+d.device+"\n", m.read("grub"), "on the disk that was found")

	t.Run("GRUB itself", func(t *testing.T) {
		grub, err := exec.LookPath("grub-install") // Debian: grub2-common, grub-pc-bin
		if _, missing := os.Stat("/usr/lib/grub/i386-pc"); err != nil || missing != nil {
			t.Skip("SKIP: no grub-install for i386-pc here")
		}
		m := newMachine(t)
		m.efi = false
		m.settings["boot"], m.settings["grub"], m.settings["bootLoader"] = "legacy", grub, "grub"
		d := m.disk(small, serial(olafDisk)...)
		status, output := m.setup()
		if strings.Contains(output, "cannot find a GRUB drive for /dev/loop") {
			t.Skip("SKIP: GRUB does not know partitions of loop devices where the kernel does not read them itself")
		}
		require.Equal(t, done, status, output)
		code := make([]byte, 440)
		file, err := os.Open(d.file)
		require.NoError(t, err)
		defer file.Close()
		_, err = file.ReadAt(code, 0)
		require.NoError(t, err)
		require.NotEqual(t, make([]byte, 440), code)
	})
}

func TestExistingFileSystems(t *testing.T) {
	prepared := func(t *testing.T) (*machine, *disk) {
		m := newMachine(t)
		m.settings["serial"] = nil
		d := m.disk(large)
		d.partition("label: gpt\nsize=64MiB\nsize=64MiB\nsize=64MiB\n")
		d.run("mkfs.vfat", "-n", "boot", d.device+"p1")
		d.run("mkfs.ext4", "-q", "-F", "-L", "nixos", d.device+"p2")
		return m, d
	}
	m, d := prepared(t)
	table := d.run("sfdisk", "--dump", d.device)
	output := m.installs()
	require.NotContains(t, output, "ERASING")
	require.Equal(t, table, d.run("sfdisk", "--dump", d.device))
	_, err := d.content(2, "etc/nixos/hardware-configuration.nix")
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(m.dir, "systemctl")))
	m.refuses("is not empty, and installing over it is not allowed", []*disk{d})
	m.installs("--wipe")

	m, d = prepared(t)
	d.run("mkfs.ext4", "-q", "-F", "-L", "nixos", d.device+"p3")
	m.refuses(`several file systems are labelled "nixos"`, []*disk{d})

	m, d = prepared(t)
	d.run("e2label", d.device+"p2", "other")
	m.refuses(`no file system is labelled "nixos"`, []*disk{d})

	m, d = prepared(t)
	m.settings["fileSystems"] = []any{map[string]any{"mountPoint": "/", "device": "/dev/disk/by-uuid/missing"}}
	m.refuses("/dev/disk/by-uuid/missing of the configuration of olaf does not exist", []*disk{d})

	// with a disk to erase, another one with these labels is ambiguous
	m, d = prepared(t)
	m.settings["serial"] = strings.ToLower(olafDisk)
	m.refuses(d.device+`p2 already has a file system labelled "nixos"`, []*disk{d, m.disk(large, serial(olafDisk)...)})
}

func TestDisko(t *testing.T) {
	layout := func(m *machine, disks ...string) {
		m.settings["disko"] = map[string]any{"disks": disks, "command": []string{"disko-stand-in", "--yes-wipe-all-disks"}}
	}
	m := newMachine(t)
	d := m.disk(small)
	link := filepath.Join(t.TempDir(), "by id")
	require.NoError(t, os.Symlink(d.device, link))
	layout(m, link)
	m.write("disko-disk", d.device)
	m.settings["serial"] = nil
	m.write("store-system/fstab", d.device+" / ext4 defaults 0 1\n")
	m.installs()
	require.Equal(t, "--yes-wipe-all-disks\n", m.read("disko"))

	require.NoError(t, os.Remove(filepath.Join(m.dir, "systemctl")))
	m.refuses("is not blank", []*disk{d})

	m = newMachine(t)
	d = m.disk(small)
	layout(m, d.device, "/dev/disk/by-id/missing")
	m.refuses("the disk /dev/disk/by-id/missing of partitioning/olaf.nix does not exist: is this olaf?", []*disk{d})

	m = newMachine(t)
	d = m.disk(small)
	layout(m, d.device, d.device)
	m.refuses("twice", []*disk{d})

	m = newMachine(t)
	d, other := m.disk(small), m.disk(small)
	other.put(0, "data")
	layout(m, d.device, other.device)
	m.refuses(other.device+" is not blank", []*disk{d, other})

	m = newMachine(t)
	d = m.disk(small)
	d.partition("label: gpt\nsize=8MiB\n")
	layout(m, d.device+"p1")
	m.refuses("is not a whole disk", []*disk{d})
}

// A second cluster must not be founded beside a running one.
func TestInitServerAsksTheOthers(t *testing.T) {
	const living, dead = "127.87.3.1", "127.87.3.2"
	listener, err := net.Listen("tcp", living+":6443")
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	t.Cleanup(func() { listener.Close() })
	with := func(t *testing.T, others ...string) (*machine, *disk) {
		m := newMachine(t)
		m.settings["gateway"] = "10.0.100.1"
		m.write("gateway-answers", "")
		joining := map[string]any{}
		for _, other := range others {
			joining[other] = map[string]any{"path": m.system("joins-" + other), "recipe": nil}
		}
		m.settings["joining"] = joining
		return m, m.disk(large, serial(olafDisk)...)
	}

	m, _ := with(t, living, dead)
	output := m.installs()
	require.Contains(t, m.read("nixos-install"), "store-joins-"+living)
	require.Contains(t, output, "Remove its old etcd member there")

	m, _ = with(t, dead)
	m.installs()
	require.Contains(t, m.read("nixos-install"), "store-system/")

	m, d := with(t, living)
	require.NoError(t, os.Remove(filepath.Join(m.dir, "gateway-answers")))
	m.refuses("the other servers cannot be asked", []*disk{d})
	m.cmdline += " k3splan.found-cluster"
	m.installs()
	require.Contains(t, m.read("nixos-install"), "store-system/")
}

func TestFailures(t *testing.T) {
	m := newMachine(t)
	d := m.disk(large, serial(olafDisk)...)
	s := m.stick(olafStick(true))
	m.write("fails", "")
	status, output := m.setup()
	require.Equal(t, failed, status)
	require.Contains(t, output, "THE INSTALLATION FAILED")
	require.Contains(t, output, "nixos-install failed")
	require.NotContains(t, m.read("systemctl"), "poweroff")
	require.Contains(t, s.recorded("setup.log"), "no space left on device")
	require.Contains(t, s.recorded("history"), "exit status 1")

	// the same stick continues where it stopped, and erases nothing
	d.rescan()
	uuid := d.run("blkid", "-p", "-s", "UUID", "-o", "value", d.device+"p2")
	require.NoError(t, os.Remove(filepath.Join(m.dir, "fails")))
	output = m.installs()
	require.Contains(t, output, "continues there")
	require.NotContains(t, output, "ERASING")
	require.Equal(t, uuid, d.run("blkid", "-p", "-s", "UUID", "-o", "value", d.device+"p2"))

	// another stick does not
	m = newMachine(t)
	d = m.disk(large, serial(olafDisk)...)
	s = m.stick(olafStick(false))
	m.write("fails", "")
	status, _ = m.setup()
	require.Equal(t, failed, status)
	partition, err := olafStick(false).Partition()
	require.NoError(t, err)
	s.put(2*mib, string(partition))
	require.NoError(t, os.Remove(filepath.Join(m.dir, "fails")))
	m.refuses("is not blank", []*disk{d})

	// a system that could not start does not count as installed
	for _, prepare := range []func(m *machine){
		func(m *machine) { m.write("loader", "true") },
		func(m *machine) { m.write("store-system/fstab", "/dev/disk/by-label/other / ext4 defaults 0 1\n") },
		func(m *machine) { m.write("store-system/fstab", "/dev/disk/by-label/nixos /srv ext4 defaults 0 1\n") },
	} {
		m := newMachine(t)
		m.disk(large, serial(olafDisk)...)
		prepare(m)
		status, output := m.setup()
		require.Equal(t, failed, status, output)
		require.NotContains(t, m.read("systemctl"), "poweroff")
	}
}

func TestCheckChangesNothing(t *testing.T) {
	m := newMachine(t)
	d := m.disk(large, serial(olafDisk)...)
	s := m.stick(olafStick(true))
	before, stickBefore := d.state(), s.state()
	status, output := m.setup("--check")
	require.Equal(t, done, status, output)
	require.Contains(t, output, "ERASING "+d.device)
	require.Contains(t, output, "nothing was changed")
	require.Equal(t, before, d.state())
	require.Equal(t, stickBefore, s.state())
	require.Empty(t, m.read("nixos-install")+m.read("systemctl"))

	status, output = m.setup("--nonsense")
	require.Equal(t, 2, status)
	require.Contains(t, output, "setup [--check]")
}

func TestWithoutSecrets(t *testing.T) {
	m := newMachine(t)
	m.disk(large, serial(olafDisk)...)
	m.stick(stick.Data{Host: "olaf"})
	output := m.installs("--stay")
	require.Contains(t, output, `the secret "server-token" is not on the stick; k3splan deploy uploads it`)
	require.NotContains(t, m.read("placed"), "token")
	require.Empty(t, m.read("systemctl"), "asked to stay")
}

// The configuration says which boot loader must have been installed.
func TestBootLoaders(t *testing.T) {
	const efi = "mkdir -p boot/EFI/BOOT; echo x > boot/EFI/BOOT/BOOTX64.EFI; "
	for name, test := range map[string]struct {
		loader, files string
		legacy        bool
		reason        string // "" if it is installed
	}{
		"systemd-boot":               {loader: "systemd-boot", files: efi + "mkdir -p boot/loader/entries; echo x > boot/loader/entries/a.conf"},
		"GRUB":                       {loader: "grub", files: efi + "mkdir -p boot/grub; echo x > boot/grub/grub.cfg"},
		"signed unified image":       {loader: "unified", files: efi + "mkdir -p boot/EFI/Linux; echo x > boot/EFI/Linux/nixos-generation-1.efi"},
		"in lower case":              {loader: "unified", files: "mkdir -p boot/efi/boot boot/efi/linux; echo x > boot/efi/boot/bootx64.efi; echo x > boot/efi/linux/nixos.efi"},
		"rEFInd":                     {loader: "refind", files: efi + "mkdir -p boot/EFI/refind; echo x > boot/EFI/refind/refind.conf"},
		"Limine":                     {loader: "limine", files: efi + "mkdir -p boot/limine; echo x > boot/limine/limine.conf"},
		"extlinux":                   {loader: "extlinux", files: "mkdir -p boot/extlinux; echo x > boot/extlinux/extlinux.conf", legacy: true},
		"Limine, BIOS":               {loader: "limine", files: "mkdir -p boot/limine; echo x > boot/limine/limine.conf", legacy: true},
		"unknown to k3splan":         {loader: "external", files: "true"},
		"GRUB expected":              {loader: "grub", files: efi + "mkdir -p boot/loader/entries; echo x > boot/loader/entries/a.conf", reason: "the boot loader (grub) has no entry"},
		"systemd-boot expected":      {loader: "systemd-boot", files: efi + "mkdir -p boot/grub; echo x > boot/grub/grub.cfg", reason: "the boot loader (systemd-boot) has no entry"},
		"an empty menu":              {loader: "grub", files: efi + "mkdir -p boot/grub; : > boot/grub/grub.cfg", reason: "the boot loader (grub) has no entry"},
		"an image without loader":    {loader: "unified", files: "mkdir -p boot/EFI/Linux; echo x > boot/EFI/Linux/nixos.efi", reason: "the EFI partition contains no boot loader"},
		"nothing in /boot/extlinux/": {loader: "extlinux", files: "mkdir -p boot/extlinux", legacy: true, reason: "the boot loader (extlinux) has no entry"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			command := exec.Command("bash", "-c", `set -eu
				udevadm() { :; }
				labelled() { echo /dev/sda2; }
				fail() { echo "$1"; exit 1; }
				eval "$(sed -n '/^inside()/,/^}/p; /^check_result()/,/^}/p' "$SETUP")"
				cd "$root"
				mkdir -p nix/var/nix/profiles/system/bin "./$system/etc" boot
				touch nix/var/nix/profiles/system/bin/switch-to-configuration
				echo '/dev/disk/by-label/nixos / ext4 defaults 0 1' > "./$system/etc/fstab"
				eval "$files"
				check_result`)
			command.Env = append(os.Environ(), "root="+root, "system=/nix/store/x-nixos",
				"boot_loader="+test.loader, "files="+test.files, "boot="+map[bool]string{true: "legacy", false: "efi"}[test.legacy])
			script, err := filepath.Abs("../../templates/installer/setup.sh")
			require.NoError(t, err)
			command.Env = append(command.Env, "SETUP="+script)
			out, err := command.CombinedOutput()
			if test.reason == "" {
				require.NoError(t, err, "%s", out)
				require.Empty(t, string(out))
				return
			}
			require.Error(t, err)
			require.Contains(t, string(out), test.reason)
		})
	}
}

// A layout whose key is missing would erase the disk and then fail.
func TestKeysOfALayout(t *testing.T) {
	m := newMachine(t)
	d := m.disk(small)
	key := filepath.Join(t.TempDir(), "disk.key")
	m.settings["serial"] = nil
	m.settings["disko"] = map[string]any{"disks": []string{d.device}, "command": []string{"disko-stand-in"}, "keyFiles": []string{key}}
	m.write("disko-disk", d.device)
	m.write("store-system/fstab", d.device+" / ext4 defaults 0 1\n")
	m.refuses("is encrypted with the key in "+key+", which does not exist here", []*disk{d})
	require.NoError(t, os.WriteFile(key, []byte("x"), 0o600))
	m.installs()
}

// A disk with data that the system mounts must be there before another disk is erased.
func TestOtherDevices(t *testing.T) {
	m := newMachine(t)
	d := m.disk(small)
	m.settings["serial"], m.settings["otherDevices"] = nil, []string{"/dev/disk/by-label/data"}
	m.settings["disko"] = map[string]any{"disks": []string{d.device}, "command": []string{"disko-stand-in"}, "keyFiles": []string{}}
	m.refuses(`no file system is labelled "data"`, []*disk{d})
}

// What does not fit is refused before anything is erased.
func TestRoom(t *testing.T) {
	m := newMachine(t)
	d := m.disk(large, serial(olafDisk)...)
	m.write("closure-size", "600000000\n")
	m.refuses("olaf needs 600 MiB, and "+d.device+" has room for 510 MiB", []*disk{d})
	m.write("closure-size", "400000000\n")
	m.installs()

	// the layout's own EFI system partition
	m = newMachine(t)
	d = m.disk(small)
	m.settings["serial"], m.settings["espSize"] = nil, 10*mib
	m.settings["disko"] = map[string]any{"disks": []string{d.device}, "command": []string{"disko-stand-in"}, "keyFiles": []string{}}
	for _, file := range []string{"store-system/system/kernel", "store-system/system/initrd"} {
		m.write(file, "")
		require.NoError(t, os.Truncate(filepath.Join(m.dir, file), 5*mib))
	}
	m.write("closure-size", "180000000\n")
	m.refuses("olaf needs 90 MiB, and "+d.device+" has room for 64 MiB", []*disk{d})
	m.write("closure-size", "1000\n")
	m.refuses("kernel and initrd of olaf need 12 MiB, and the EFI system partition of partitioning/olaf.nix has 10 MiB", []*disk{d})
}

// GRUB cannot be installed on every disk that has a file system for it.
func TestRoomForGRUB(t *testing.T) {
	prepared := func(t *testing.T, table string) (*machine, *disk) {
		m := newMachine(t)
		m.efi, m.settings["boot"], m.settings["grub"], m.settings["bootLoader"] = false, "legacy", "grub-stand-in", "grub"
		m.settings["serial"], m.settings["espMounts"] = nil, []string{}
		m.settings["fileSystems"] = []any{map[string]any{"mountPoint": "/", "device": "/dev/disk/by-label/nixos"}}
		d := m.disk(large)
		if table == "" {
			d.run("mkfs.ext4", "-q", "-F", "-L", "nixos", d.device)
			return m, d
		}
		d.partition(table)
		d.run("mkfs.ext4", "-q", "-F", "-L", "nixos", d.device+"p1")
		return m, d
	}
	m, d := prepared(t, "label: gpt\nsize=64MiB\n")
	m.refuses("has no BIOS boot partition", []*disk{d})
	m, _ = prepared(t, "label: gpt\nsize=64MiB\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\n")
	m.installs()
	m, d = prepared(t, "label: dos\nstart=63, size=100000\n")
	m.refuses("begins at sector 63, which leaves GRUB no room", []*disk{d})
	m, _ = prepared(t, "label: dos\nstart=2048, size=100000\n")
	m.installs()
	m, d = prepared(t, "")
	m.refuses("has no partition table, so GRUB has no room on it", []*disk{d})
}

// Options choose what is mounted, for example a subvolume.
func TestOptionsOfExistingFileSystems(t *testing.T) {
	m := newMachine(t)
	m.settings["serial"] = nil
	d := m.disk(large)
	d.partition("label: gpt\nsize=64MiB\nsize=64MiB\n")
	d.run("mkfs.vfat", "-n", "boot", d.device+"p1")
	d.run("mkfs.ext4", "-q", "-F", "-L", "nixos", d.device+"p2")
	m.settings["fileSystems"] = []any{
		map[string]any{"mountPoint": "/", "device": "/dev/disk/by-label/nixos", "options": []string{"noatime", "nosuid"}},
		map[string]any{"mountPoint": "/boot", "device": "/dev/disk/by-label/boot", "options": []string{}},
	}
	m.installs()
	require.Regexp(t, `nosuid.*noatime`, m.read("options"))

	m.settings["fileSystems"] = []any{map[string]any{"mountPoint": "/boot", "device": "/dev/disk/by-label/boot"}}
	require.NoError(t, os.Remove(filepath.Join(m.dir, "systemctl")))
	m.refuses("mounts no file system at /", []*disk{d})
}

// Every shell script of the templates, and those within the modules.
func TestShellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck") // Debian: shellcheck
	if err != nil {
		t.Skip("SKIP: shellcheck is not on PATH")
	}
	scripts, err := filepath.Glob("../../templates/installer/*.sh")
	require.NoError(t, err)
	require.NotEmpty(t, scripts)
	out, err := exec.Command(shellcheck, scripts...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
