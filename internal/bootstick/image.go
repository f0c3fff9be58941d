package bootstick

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Image is what is written: Size bytes from Reader, read once and in order. A
// partition that is added when the stick is made comes behind it with
// io.MultiReader, and Size grows by it.
type Image struct {
	Name   string // for messages
	Size   int64  // bytes
	Reader io.Reader
}

// OpenImage opens a file as an image, and closes it with the returned function.
// The error is *[NoImage] if a machine could not boot from it.
func OpenImage(path string) (Image, func() error, error) {
	info, err := os.Stat(path) // before opening, which hangs with a pipe
	if err != nil {
		return Image{}, nil, fmt.Errorf("open the image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Image{}, nil, &NoImage{path, "it is not a regular file", "name the file with the image, in a Nix result below iso/"}
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

// NoImage says why a file is not written to a stick.
type NoImage struct{ Path, Message, hint string }

func (n *NoImage) Error() string { return fmt.Sprintf("%s is no boot image: %s", n.Path, n.Message) }

// Hint says how to mend it.
func (n *NoImage) Hint() string { return n.hint }

// packers are the first bytes of files that hold an image, packed.
var packers = []struct{ name, magic, unpack string }{
	{"gzip", "\x1f\x8b", "gunzip"},
	{"xz", "\xfd7zXZ\x00", "unxz"},
	{"zstd", "\x28\xb5\x2f\xfd", "unzstd"},
	{"bzip2", "BZh", "bunzip2"},
	{"zip", "PK\x03\x04", "unzip"},
	{"qcow2", "QFI\xfb", "qemu-img convert -O raw"},
}

func inspectImage(path string, file *os.File) (Image, error) {
	refuse := func(message, hint string) (Image, error) { return Image{}, &NoImage{path, message, hint} }
	info, err := file.Stat()
	if err != nil {
		return Image{}, fmt.Errorf("look at the image: %w", err)
	}
	sector := make([]byte, 512)
	n, err := file.ReadAt(sector, 0)
	if err != nil && err != io.EOF {
		return Image{}, fmt.Errorf("read the image: %w", err)
	}
	for _, packer := range packers {
		if bytes.HasPrefix(sector[:n], []byte(packer.magic)) {
			return refuse("it is packed with "+packer.name, "unpack it first: "+packer.unpack+" "+shellWord(path))
		}
	}
	// MBR, the protective MBR of GPT, hybrid ISO and FAT all end so.
	if n < len(sector) || sector[510] != 0x55 || sector[511] != 0xaa {
		return refuse("it has no boot sector", "name an image that `k3splan boot-stick HOST --output FILE` made")
	}
	return Image{Name: path, Size: info.Size(), Reader: file}, nil
}
