package stick

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"k3splan/internal/diag"
)

// Image is what is written: Size bytes from Reader, read once and in order.
type Image struct {
	Name   string // for messages
	Size   int64  // bytes
	Reader io.Reader
}

// OpenImage opens a file as an image; the returned function closes it. The error is an [ErrRefused] if no
// machine could boot from the file.
func OpenImage(path string) (Image, func() error, error) {
	info, err := os.Stat(path) // before opening, which hangs with a pipe
	if err != nil {
		return Image{}, nil, fmt.Errorf("open the image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Image{}, nil, notAnImage(path, "it is not a regular file", "name the image file, in a Nix result below iso/")
	}
	file, err := os.Open(path)
	if err != nil {
		return Image{}, nil, fmt.Errorf("open the image: %w", err)
	}
	image, err := inspectImage(path, file)
	if err != nil {
		file.Close()
		return Image{}, nil, err
	}
	return image, file.Close, nil
}

func notAnImage(path, reason, hint string) error {
	return refuse(hint, "%s is not a boot image: %s", diag.Printable(path), reason)
}

// packers are the first bytes of files that hold a compressed image.
var packers = []struct{ name, magic, unpack string }{
	{"gzip", "\x1f\x8b", "gunzip"},
	{"xz", "\xfd7zXZ\x00", "unxz"},
	{"zstd", "\x28\xb5\x2f\xfd", "unzstd"},
	{"bzip2", "BZh", "bunzip2"},
	{"zip", "PK\x03\x04", "unzip"},
	{"qcow2", "QFI\xfb", "qemu-img convert -O raw"},
}

func inspectImage(path string, file *os.File) (Image, error) {
	info, err := file.Stat()
	if err != nil {
		return Image{}, fmt.Errorf("read the image: %w", err)
	}
	start := make([]byte, tableSector)
	n, err := file.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return Image{}, fmt.Errorf("read the image: %w", err)
	}
	for _, packer := range packers {
		if bytes.HasPrefix(start[:n], []byte(packer.magic)) {
			return Image{}, notAnImage(path, "it is compressed with "+packer.name, "unpack it first: "+packer.unpack+" "+shellWord(path))
		}
	}
	// MBR, the protective MBR of GPT, hybrid ISO and FAT all end like this.
	if n < len(start) || start[510] != 0x55 || start[511] != 0xaa {
		return Image{}, notAnImage(path, "it has no boot sector", "name an image made by `k3splan boot-stick HOST --output FILE`")
	}
	return Image{Name: path, Size: info.Size(), Reader: file}, nil
}
