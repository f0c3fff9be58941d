package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// forVirtual is what virtual machines need beside the programs of the others.
var forVirtual = []struct{ file, from string }{
	{"/usr/bin/qemu-system-x86_64", "qemu-system-x86"}, {firmware + "CODE_4M.fd", "ovmf"}, {"/usr/bin/busybox", "busybox-static"},
	{"/usr/bin/mksquashfs", "squashfs-tools"}, {"/usr/bin/xorriso", "xorriso"}, {"/usr/bin/uuid", "uuid"}, {"/usr/bin/faketime", "faketime"},
	{"/usr/bin/mcopy", "mtools"}, {"/usr/bin/grub-mkimage", "grub-common"}, {"/usr/lib/grub/x86_64-efi/kernel.img", "grub-efi-amd64-bin"},
	{"/usr/sbin/mkfs.vfat", "dosfstools"}, {"/usr/sbin/sfdisk", "fdisk"}, {"/usr/lib/ISOLINUX/isolinux.bin", "isolinux"},
	{"/usr/lib/syslinux/modules/bios/vesamenu.c32", "syslinux-common"}, {"/usr/bin/cpio", "cpio"}, {"/usr/sbin/losetup", "mount"},
	{"/usr/bin/python3", "python3"},
}

const firmware = "/usr/share/OVMF/OVMF_"

// Virtual makes systems for virtual machines: with disks, a boot loader, and the kernel in the folder files, into
// which .ci/packages unpacks Debian's kernel and systemd-boot. It comes before Up.
func (l *Lab) Virtual(files string) error {
	var missing []string
	for _, program := range forVirtual {
		if _, err := os.Stat(program.file); err != nil {
			missing = append(missing, program.from)
		}
	}
	if len(missing) > 0 {
		return Missing{"Debian packages are missing: " + strings.Join(missing, " ")}
	}
	kernels, _ := filepath.Glob(filepath.Join(files, "boot/vmlinuz-*"))
	if _, err := os.Stat(filepath.Join(files, "usr/bin/bootctl")); err != nil || len(kernels) != 1 {
		return Missing{"no kernel and systemd-boot in " + files + " (.ci/packages)"}
	}
	l.more, l.kernel = filepath.Join(files, "usr"), strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	return nil
}

func (l *Lab) isVirtual() bool { return l.kernel != "" }

// Disk is the file of the machine's disk; see NewDisk.
func (m Machine) Disk() string { return m.path("disk") }

// NewDisk makes a blank disk of size bytes for the machine, and firmware that knows of no system.
func (m Machine) NewDisk(size int64) error {
	if err := os.MkdirAll(m.path(""), 0o755); err != nil {
		return err
	}
	variables, err := os.ReadFile(firmware + "VARS_4M.fd")
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(m.Disk()), os.WriteFile(m.Disk(), nil, 0o600), os.Truncate(m.Disk(), size),
		os.WriteFile(m.path("variables"), variables, 0o600))
}

// Power switches a virtual machine on, and returns when it is off again, or ctx is done. Its disk has a serial; stick is a
// device or file that is plugged in as a USB stick, or "". What the machine prints on its serial line is in Console.
func (m Machine) Power(ctx context.Context, serial, stick string) error {
	tap := m.veth()
	ip := []string{"ip", "-n", m.Name}
	if exec.Command("ip", "-n", m.Name, "link", "show", tap).Run() != nil {
		if err := each(append(ip, "tuntap", "add", tap, "mode", "tap"), append(ip, "link", "set", tap, "master", "br0", "up")); err != nil {
			return err
		}
	}
	args := []string{"netns", "exec", m.Name, "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file=" + m.Disk(), "-device", "virtio-blk-pci,drive=disk,serial=" + serial + ",bootindex=1",
		"-netdev", "tap,id=lan,script=no,downscript=no,ifname=" + tap, "-device", "virtio-net-pci,netdev=lan,addr=0x10",
		"-device", "virtio-rng-pci",
		"-virtfs", "local,mount_tag=host,security_model=none,multidevs=remap,readonly=on,path=" + filepath.Join(m.Lab.Root, "usr"),
		"-virtfs", "local,mount_tag=more,security_model=none,multidevs=remap,readonly=on,path=" + m.more,
		"-drive", "if=pflash,format=raw,readonly=on,file=" + firmware + "CODE_4M.fd", "-drive", "if=pflash,format=raw,file=" + m.path("variables"),
	}
	if stick != "" {
		args = append(args, "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,file="+stick, "-device", "usb-storage,drive=stick,removable=on,bootindex=0")
	}
	command := exec.CommandContext(ctx, "ip", args...)
	command.WaitDelay = 5 * time.Second
	keyboard, err := command.StdinPipe()
	if err != nil {
		return err
	}
	file, err := os.Create(m.Console())
	if err != nil {
		return err
	}
	defer file.Close()
	var messages bytes.Buffer
	command.Stdout, command.Stderr = &screen{file: file, keyboard: keyboard}, &messages
	if err := command.Run(); err != nil {
		return fmt.Errorf("qemu: %w: %s", err, &messages)
	}
	return nil
}

// screen is what a machine prints. Somebody at it does not wait for the menu of a boot loader, whose seconds can be
// minutes of an emulated clock.
type screen struct {
	file, keyboard io.Writer
	text           []byte
	answered       bool
}

// countdowns are those of GRUB and of systemd-boot.
var countdowns = [][]byte{[]byte("will be executed automatically"), []byte("Boot in ")}

func (s *screen) Write(data []byte) (int, error) {
	if !s.answered {
		s.text = append(s.text, data...)
		for _, countdown := range countdowns {
			if bytes.Contains(s.text, countdown) {
				s.answered, s.text = true, nil
				_, _ = io.WriteString(s.keyboard, "\r") // it may be off by now
				break
			}
		}
	}
	return s.file.Write(data)
}
