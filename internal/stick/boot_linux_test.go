package stick_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/stick"
)

// What runs when the stick boots: GRUB, with a script that reads from the image and from the stick's
// own partition, prints both on the serial line, and powers off.
const bootScript = `serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --label k3splan-olaf --set=image
cat ($image)/marker
search --no-floppy --label k3splan --set=own
cat ($own)/host
echo the-end
halt
`

// hybridISO makes an image in the way that NixOS makes its own: isolinux for BIOS, an EFI image, and
// a partition table in front of both (nixos/lib/make-iso9660-image.sh).
// Debian: xorriso isolinux syslinux-common grub-common grub-pc-bin grub-efi-amd64-bin mtools dosfstools
func hybridISO(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"xorriso", "grub-mkimage", "mformat", "mcopy", "mmd"} {
		need(t, program)
	}
	for _, file := range []string{"/usr/lib/ISOLINUX/isolinux.bin", "/usr/lib/ISOLINUX/isohdpfx.bin", "/usr/lib/syslinux/modules/bios/ldlinux.c32",
		"/usr/lib/grub/i386-pc/lnxboot.img", "/usr/lib/grub/x86_64-efi"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("SKIP: %s is missing", file)
		}
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		command := exec.Command(name, args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, args, out)
	}
	write := func(name, content string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	write("boot.cfg", bootScript)
	write("iso/marker", "read-from-the-image\n")
	write("iso/isolinux/isolinux.cfg", "SERIAL 0 115200\nDEFAULT grub\nLABEL grub\nLINUX /isolinux/grub.lnx\n")
	modules := []string{"serial", "terminal", "echo", "cat", "search", "search_label", "iso9660", "ext2", "part_msdos", "part_gpt", "fat", "halt", "sleep"}
	run("grub-mkimage", append([]string{"-O", "i386-pc", "-o", "core.img", "-p", "/", "-c", "boot.cfg", "biosdisk"}, modules...)...)
	run("grub-mkimage", append([]string{"-O", "x86_64-efi", "-o", "BOOTX64.EFI", "-p", "/", "-c", "boot.cfg"}, modules...)...)
	run("sh", "-c", "cat /usr/lib/grub/i386-pc/lnxboot.img core.img > iso/isolinux/grub.lnx && cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/isolinux/")
	run("sh", "-c", "truncate -s 4M iso/efi.img && mformat -i iso/efi.img :: && mmd -i iso/efi.img ::/EFI ::/EFI/BOOT && mcopy -i iso/efi.img BOOTX64.EFI ::/EFI/BOOT/")
	run("xorriso", "-as", "mkisofs", "-iso-level", "3", "-volid", "k3splan-olaf", "-eltorito-boot", "isolinux/isolinux.bin", "-eltorito-catalog", ".boot.cat",
		"-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin",
		"-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat", "-r", "-o", "image.iso", "iso")
	return filepath.Join(dir, "image.iso")
}

// A stick that is written as boot-stick writes it boots, by EFI and in BIOS mode, as a USB device.
func TestWrittenStickBoots(t *testing.T) {
	qemu := need(t, "qemu-system-x86_64") // Debian: qemu-system-x86 ovmf
	iso := hybridISO(t)
	image, closeImage, err := stick.OpenImage(iso)
	require.NoError(t, err)
	defer closeImage()
	file, err := os.Open(iso)
	require.NoError(t, err)
	defer file.Close()
	fits, known, err := stick.Fits(file, "olaf")
	require.NoError(t, err)
	require.True(t, fits && known, "the volume ID is where it is read")

	partition, err := stickData().Partition()
	require.NoError(t, err)
	whole, err := stick.Append(image, partition)
	require.NoError(t, err)
	device := loopDevice(t, 64<<20)
	machine, err := stick.Inspect(t.Context())
	require.NoError(t, err)
	target, err := machine.Choose(device, whole.Size, device)
	require.NoError(t, err)
	_, err = stick.Write(t.Context(), target, whole, nil)
	require.NoError(t, err)

	for name, firmware := range map[string][]string{
		"BIOS": nil,
		"EFI": {"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd"},
	} {
		t.Run(name, func(t *testing.T) {
			if firmware != nil {
				if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
					t.Skip("SKIP: OVMF is missing (Debian: ovmf)")
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			args := append([]string{"-machine", "q35,accel=tcg", "-m", "512", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none",
				"-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,readonly=on,file=" + device, "-device", "usb-storage,drive=stick,removable=on,bootindex=0"}, firmware...)
			command := exec.CommandContext(ctx, qemu, args...)
			command.WaitDelay = 5 * time.Second
			var out bytes.Buffer
			command.Stdout, command.Stderr = &out, &out
			err := command.Run()
			require.NoError(t, err, "%s", out.String())
			for _, line := range []string{"read-from-the-image", "olaf", "the-end"} {
				require.Contains(t, out.String(), line)
			}
		})
	}
}

func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices need root")
	}
	losetup := need(t, "losetup")
	file := filepath.Join(t.TempDir(), "stick")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, size))
	out, err := exec.Command(losetup, "--find", "--show", file).Output()
	if err != nil {
		t.Skip("SKIP: no loop device available")
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command(losetup, "--detach", device).Run()) })
	return device
}
