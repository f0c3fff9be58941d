package stick_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"k3splan/internal/stick"
)

const mib = 1 << 20

// Exit statuses of setup.
const (
	done    = 0
	failed  = 1
	refused = 3
)

// machine is a computer that is about to be set up.
type machine struct {
	t *testing.T
	// dir is where stand-ins record what happened.
	dir      string
	efi      bool
	cmdline  string
	settings map[string]any
	plugged  []string // loop devices
}

// present is the one machine that exists: the script reads all disks, so those of an earlier machine are
// removed before the next one comes. Tests with machines do not run in parallel.
var present *machine

func (m *machine) unplug() {
	for _, device := range m.plugged {
		for range 20 { // another program may be reading one
			_ = exec.Command("partx", "--delete", device).Run() // it may have no partitions
			if left, _ := filepath.Glob("/sys/block/" + filepath.Base(device) + "/*/partition"); len(left) == 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.NoError(m.t, exec.Command("losetup", "--detach", device).Run())
	}
	m.plugged = nil
}

// standIns replace the programs that cannot run here. $DIR is the machine's folder.
var standIns = map[string]string{
	// udev: the serials from a file, by device; and the partitions, which not every kernel reads itself
	"udevadm": `case $1 in
		info) for last; do :; done; cat "$DIR/udev/$(basename "${last#--name=}")" 2> /dev/null || true ;;
		settle) for disk in $(cat "$DIR/disks"); do partx --delete "$disk"; partx --add "$disk"; done 2> /dev/null; true ;;
		esac`,
	"nixos-install": `printf '%s\n' "$@" > "$DIR/nixos-install"
		findmnt --raw --noheadings --output TARGET,FSTYPE --submounts --target /mnt > "$DIR/mounted"
		findmnt --raw --noheadings --output OPTIONS --mountpoint /mnt > "$DIR/options"
		find /mnt/var/lib /mnt/etc -printf '%P %m %U:%G\n' | sort > "$DIR/placed" 2> /dev/null
		[ ! -e "$DIR/fails" ] || { echo "no space left on device" >&2; exit 1; }
		system=$4
		mkdir -p /mnt/nix/var/nix/profiles "/mnt$(dirname "$system")"
		cp -a "$(dirname "$system")"/. "/mnt$(dirname "$system")"
		ln -sfn system-1-link /mnt/nix/var/nix/profiles/system
		ln -sfn "$system" /mnt/nix/var/nix/profiles/system-1-link
		[ ! -e "$DIR/loader" ] || { cd /mnt && . "$DIR/loader"; exit; }
		if [ -d /sys/firmware/efi ]; then
			mkdir -p /mnt/boot/EFI/systemd /mnt/boot/loader/entries
			echo x > /mnt/boot/EFI/systemd/systemd-bootx64.efi; echo x > /mnt/boot/loader/entries/nixos.conf
		else
			mkdir -p /mnt/boot/grub; echo x > /mnt/boot/grub/grub.cfg
		fi`,
	"nix-store":             `case $2 in --requisites) echo "$3" ;; --size) cat "$DIR/closure-size" 2> /dev/null || echo 1000 ;; esac`,
	"nixos-generate-config": `echo "{ hardware = true; }"`,
	"systemctl":             `echo "$@" >> "$DIR/systemctl"`,
	"ping":                  `[ -e "$DIR/gateway-answers" ]`,
	"ip":                    `true`,
	"grub-stand-in": `echo "$@" > "$DIR/grub"; for disk; do :; done
		mkdir -p /mnt/boot/grub/i386-pc; echo x > /mnt/boot/grub/i386-pc/core.img; printf boot | dd of="$disk" conv=notrunc status=none`,
	"disko-stand-in": `echo "$@" > "$DIR/disko"; disk=$(cat "$DIR/disko-disk")
		mkfs.ext4 -q -F -L data "$disk" && mount "$disk" /mnt`,
	// where the kernel has no FAT, something else is mounted instead
	"mount": `for last; do device=${previous:-}; previous=$last; done
		if [ "$(blkid -p -s TYPE -o value "$device" 2> /dev/null)" = vfat ] && ! grep -qw vfat /proc/filesystems; then
			exec /bin/mount -t tmpfs tmpfs "$last"
		fi
		exec /bin/mount "$@"`,
}

// boot prepares the namespace in which the script starts: a system in memory, booted from a medium by a
// firmware with kernel parameters.
const boot = `set -e
	/bin/mount -t tmpfs tmpfs /run
	if [ -d /sys/firmware ]; then /bin/mount -t tmpfs tmpfs /sys/firmware; fi
	if [ -n "$EFI" ]; then mkdir -p /sys/firmware/efi; fi
	/bin/mount --bind "$DIR/cmdline" /proc/cmdline
	mkdir /run/upper /run/work
	/bin/mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
	mkdir /etc/k3splan
	cp "$DIR/installer.json" /etc/k3splan/
	exec bash "$@"`

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices and mounts need root")
	}
	// Debian: util-linux, fdisk, dosfstools, e2fsprogs, jq, mount
	for _, program := range []string{"unshare", "losetup", "lsblk", "partx", "wipefs", "sfdisk", "mkfs.vfat", "mkfs.ext4", "jq", "findmnt", "blkid"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH", program)
		}
	}
	if out, err := exec.Command("unshare", "--mount", "bash", "-c", "mkdir -p "+t.TempDir()+"/{a,b,c,d} && cd "+t.TempDir()+" && true").CombinedOutput(); err != nil {
		t.Skipf("SKIP: no mount namespaces here: %s", out)
	}
	if present != nil {
		present.unplug()
	}
	for _, label := range []string{"nixos", "boot", stick.Label} {
		if out, _ := exec.Command("blkid", "-c", "/dev/null", "-o", "device", "-t", "LABEL="+label).Output(); len(out) > 0 {
			t.Skipf("SKIP: this machine has a file system labelled %q: %s", label, out)
		}
	}
	m := &machine{t: t, dir: t.TempDir(), efi: true, cmdline: "quiet"}
	present = m
	t.Cleanup(m.unplug)
	m.write("disks", "")
	require.NoError(t, os.Mkdir(filepath.Join(m.dir, "udev"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(m.dir, "bin"), 0o755))
	for name, script := range standIns {
		m.write(filepath.Join("bin", name), "#!/bin/bash\n"+script+"\n")
	}
	m.settings = map[string]any{
		"host": "olaf", "volume": "k3splan-olaf", "boot": "efi", "serial": "s4ewnx0m700101", "mac": nil, "gateway": nil,
		"path": m.system("system"), "recipe": nil, "joining": map[string]any{}, "disko": nil, "labelled": true, "grub": nil,
		"bootLoader": "systemd-boot", "espMounts": []string{"/boot"}, "espSize": nil,
		"fileSystems": []any{
			map[string]any{"mountPoint": "/", "device": "/dev/disk/by-label/nixos"},
			map[string]any{"mountPoint": "/boot", "device": "/dev/disk/by-label/boot"},
		},
		"secrets": map[string]any{
			"passwd":       []string{"/var/lib/k3splan/secrets/passwd", "/var/lib/k3splan/server/passwd"},
			"ssh-host-key": []string{"/var/lib/k3splan/ssh/ssh_host_ed25519_key"},
			"server-token": []string{"/var/lib/k3splan/server/token"},
		},
		"pause": 0,
	}
	return m
}

func (m *machine) write(name, content string) {
	m.t.Helper()
	require.NoError(m.t, os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o755))
}

// read returns what a stand-in recorded, "" if it was not called.
func (m *machine) read(name string) string {
	m.t.Helper()
	content, err := os.ReadFile(filepath.Join(m.dir, name))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(m.t, err)
	}
	return string(content)
}

// system makes a built system, as far as the script reads it.
func (m *machine) system(name string) string {
	m.t.Helper()
	dir := filepath.Join(m.dir, "store-"+name)
	for file, content := range map[string]string{
		"system/bin/switch-to-configuration": "#!/bin/sh\n",
		"etc/etc/.keep":                      "",
		"fstab":                              "# made by Nix\n/dev/disk/by-label/nixos / ext4 x-initrd.mount 0 1\n/dev/sdz1 /srv ext4 nofail 0 2\n",
	} {
		file = filepath.Join(dir, file)
		require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(m.t, os.WriteFile(file, []byte(content), 0o755))
	}
	// absolute links, as in a store
	require.NoError(m.t, os.Symlink(dir+"/etc/etc", dir+"/system/etc"))
	require.NoError(m.t, os.Symlink(dir+"/fstab", dir+"/etc/etc/fstab"))
	return dir + "/system"
}

// disk is a loop device with a file behind it.
type disk struct {
	t            *testing.T
	device, file string
}

// disk plugs in a blank disk that udev knows by properties.
func (m *machine) disk(size int64, properties ...string) *disk {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "disk.img")
	require.NoError(m.t, os.WriteFile(file, nil, 0o600))
	require.NoError(m.t, os.Truncate(file, size))
	return m.plug(file, nil, properties...)
}

func (m *machine) plug(file string, options []string, properties ...string) *disk {
	m.t.Helper()
	out, err := exec.Command("losetup", append(append([]string{"--find", "--show"}, options...), file)...).CombinedOutput()
	if err != nil {
		m.t.Skipf("SKIP: no loop device available: %v: %s", err, out)
	}
	d := &disk{m.t, strings.TrimSpace(string(out)), file}
	m.plugged = append(m.plugged, d.device)
	m.write(filepath.Join("udev", filepath.Base(d.device)), strings.Join(properties, "\n")+"\n")
	m.write("disks", m.read("disks")+d.device+"\n")
	d.rescan()
	return d
}

// serial returns the properties of a SATA disk.
func serial(s string) []string {
	return []string{"ID_BUS=ata", "ID_SERIAL=Samsung_SSD_" + s, "ID_SERIAL_SHORT=" + s}
}

// rescan makes the kernel read the partitions; there may be none.
func (d *disk) rescan() {
	_ = exec.Command("partx", "--delete", d.device).Run()
	_ = exec.Command("partx", "--add", d.device).Run()
}

func (d *disk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(d.t, err, "%s %v: %s", name, args, out)
	return string(out)
}

func (d *disk) partition(script string) {
	d.t.Helper()
	command := exec.Command("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", d.device)
	command.Stdin = strings.NewReader(script)
	out, err := command.CombinedOutput()
	require.NoError(d.t, err, "%s", out)
	d.rescan()
}

func (d *disk) put(offset int64, content string) {
	d.t.Helper()
	file, err := os.OpenFile(d.file, os.O_WRONLY, 0)
	require.NoError(d.t, err)
	_, err = file.WriteAt([]byte(content), offset)
	require.NoError(d.t, err)
	require.NoError(d.t, file.Close())
	require.NoError(d.t, exec.Command("blockdev", "--flushbufs", d.device).Run())
}

// state returns a checksum of the disk's data.
func (d *disk) state() string {
	d.t.Helper()
	require.NoError(d.t, exec.Command("blockdev", "--flushbufs", d.device).Run())
	file, err := os.Open(d.file)
	require.NoError(d.t, err)
	defer file.Close()
	sum, page := sha256.New(), make([]byte, 4096)
	for at := int64(0); ; {
		start, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Sprintf("%x", sum.Sum(nil))
		}
		require.NoError(d.t, err)
		end, err := unix.Seek(int(file.Fd()), start, unix.SEEK_HOLE)
		require.NoError(d.t, err)
		// zeros count as a hole: the positions of holes may change by themselves
		for at = start / 4096 * 4096; at < end; at += 4096 {
			_, err = file.ReadAt(page, at)
			require.NoError(d.t, err)
			if !bytes.Equal(page, make([]byte, 4096)) {
				fmt.Fprintln(sum, at)
				sum.Write(page)
			}
		}
	}
}

// content returns a small text file on one of the disk's partitions, or an error.
func (d *disk) content(partition int, name string) (string, error) {
	d.t.Helper()
	d.rescan()
	script := `m=$(mktemp -d) && mount -o ro "$1" "$m" && cat "$m/$2"; s=$?; umount "$m"; rmdir "$m"; exit $s`
	out, err := exec.Command("unshare", "--mount", "bash", "-c", script, "-", fmt.Sprintf("%sp%d", d.device, partition), name).Output()
	return string(out), err
}

type pluggedStick struct{ *disk }

// stick plugs in a stick that was written for a host.
func (m *machine) stick(content stick.Data, options ...string) pluggedStick {
	m.t.Helper()
	partition, err := content.Partition()
	require.NoError(m.t, err)
	image := make([]byte, 2*mib)
	copy(image, "the image")
	image[510], image[511] = 0x55, 0xaa
	whole, err := stick.Append(stick.Image{Size: int64(len(image)), Reader: bytes.NewReader(image)}, partition)
	require.NoError(m.t, err)
	data, err := io.ReadAll(whole.Reader)
	require.NoError(m.t, err)
	file := filepath.Join(m.t.TempDir(), "stick.img")
	require.NoError(m.t, os.WriteFile(file, data, 0o600))
	return pluggedStick{m.plug(file, options, "ID_BUS=usb", "ID_SERIAL_SHORT=STICK")}
}

func (s pluggedStick) recorded(name string) string {
	s.t.Helper()
	content, err := s.content(1, name)
	if err != nil {
		return ""
	}
	return content
}

var secrets = map[string][]byte{"passwd": []byte("$6$hash\n"), "server-token": []byte("the token\n"), "ssh-host-key": []byte("a key\n")}

// setup boots the machine, which runs the script.
func (m *machine) setup(args ...string) (status int, output string) {
	m.t.Helper()
	settings, err := json.Marshal(m.settings)
	require.NoError(m.t, err)
	m.write("installer.json", string(settings))
	m.write("cmdline", m.cmdline+"\n")
	script, err := filepath.Abs("../../templates/installer/setup.sh")
	require.NoError(m.t, err)
	command := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "bash", "-c", boot, "boot", script}, args...)...)
	command.Env = append(os.Environ(), "DIR="+m.dir, "PATH="+m.dir+"/bin:"+os.Getenv("PATH")+":/usr/sbin:/sbin", "EFI="+map[bool]string{true: "1"}[m.efi])
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(m.t, err)
	}
	return command.ProcessState.ExitCode(), string(out)
}

func (m *machine) installs(args ...string) (output string) {
	m.t.Helper()
	for _, name := range []string{"nixos-install", "systemctl"} {
		_ = os.Remove(filepath.Join(m.dir, name))
	}
	status, output := m.setup(args...)
	require.Equal(m.t, done, status, output)
	require.Contains(m.t, output, "olaf is installed")
	require.NotEmpty(m.t, m.read("nixos-install"))
	return output
}

// refuses checks that setup refuses for a reason, and that no disk is changed.
func (m *machine) refuses(reason string, disks []*disk, args ...string) (output string) {
	m.t.Helper()
	before := map[string]string{}
	for _, d := range disks {
		before[d.device] = d.state()
	}
	called := m.read("nixos-install")
	status, output := m.setup(args...)
	require.Equal(m.t, refused, status, output)
	require.Contains(m.t, output, "NOT INSTALLED. Nothing was changed.")
	_, report, _ := strings.Cut(output, "Nothing was changed.")
	require.Contains(m.t, report, reason, output)
	after := map[string]string{}
	for _, d := range disks {
		after[d.device] = d.state()
	}
	require.True(m.t, maps.Equal(before, after), "a disk was changed: %s", output)
	require.Equal(m.t, called, m.read("nixos-install"))
	require.NotContains(m.t, m.read("systemctl"), "poweroff", "the reason stays on the screen")
	return output
}
