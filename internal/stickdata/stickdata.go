// Package stickdata makes what a boot stick carries beside its image: a small partition of its own
// behind the image, with the host's secrets, the permission to erase a disk, and room for what the
// installer records. The image itself comes from the Nix store, which everybody can read.
//
// The partition is an ext2 file system, because that knows owners: a machine that mounts whatever is
// plugged in shows its content to root alone. Files in it:
//
//	host          the name of the host that the stick is for
//	id            random, to tell one stick from another
//	wipe          is there if a disk may be erased that is not blank
//	secrets/KIND  by the names of hive's secrets, and "ssh-host-key"
//
// What the installer (templates/installer/setup.sh) adds: wiped, installed, history, setup.log.
package stickdata

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"k3splan/internal/bootstick"
)

const (
	// Label is that of the file system.
	Label = "k3splan"
	// Size is that of the partition, in bytes.
	Size = blocks * blockSize
	// SSHHostKey is the kind of the secret that is the host's private ssh key.
	SSHHostKey = "ssh-host-key"

	// volumePrefix stands before the host's name in the ISO's volume ID, as templates/installer says.
	volumePrefix = "k3splan-"

	sector    = 512
	alignment = 1 << 20 // bytes; where partitions begin
)

// Content is what a stick carries for its host.
type Content struct {
	Host string
	// Wipe allows to erase a disk that is not blank, once.
	Wipe bool
	// Secrets are contents by kind; without any the stick may lie around.
	Secrets map[string][]byte
}

// Partition gives the bytes of the partition, Size of them.
func (c Content) Partition() ([]byte, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	fs := newExt2(Label, id)
	fs.file(rootInode, "host", []byte(c.Host+"\n"))
	fs.file(rootInode, "id", []byte(hex.EncodeToString(id)+"\n"))
	if c.Wipe {
		fs.file(rootInode, "wipe", []byte("A disk of "+c.Host+" may be erased, once.\n"))
	}
	secrets := fs.directory(rootInode, "secrets")
	for _, kind := range slices.Sorted(maps.Keys(c.Secrets)) {
		fs.file(secrets, kind, c.Secrets[kind])
	}
	data, err := fs.bytes()
	if err != nil {
		return nil, fmt.Errorf("make the stick's own partition: %w", err)
	}
	return data, nil
}

// NoRoom says why an image cannot get a partition.
type NoRoom struct{ message string }

func (n *NoRoom) Error() string { return n.message }

// Hint says what to do.
func (n *NoRoom) Hint() string {
	return "use an image that `k3splan boot-stick HOST --output FILE` made"
}

// Append gives the image with a partition behind it. The image's partition table gets an entry for
// it; beside that, no byte of the image changes. Partitions come from [Content.Partition]; the error
// is *[NoRoom] if the image has no table of the usual form (that of a hybrid ISO).
func Append(image bootstick.Image, partition []byte) (bootstick.Image, error) {
	head := make([]byte, sector)
	if _, err := io.ReadFull(image.Reader, head); err != nil {
		return bootstick.Image{}, fmt.Errorf("read %s: %w", image.Name, err)
	}
	start := (image.Size + alignment - 1) / alignment * alignment
	if err := addEntry(head, start/sector, int64(len(partition))/sector); err != nil {
		return bootstick.Image{}, err
	}
	return bootstick.Image{
		Name: image.Name,
		Size: start + int64(len(partition)),
		Reader: io.MultiReader(bytes.NewReader(head), io.LimitReader(image.Reader, image.Size-sector),
			bytes.NewReader(make([]byte, start-image.Size)), bytes.NewReader(partition)),
	}, nil
}

// addEntry puts a partition into a free entry of an MBR. Start and length are in sectors.
func addEntry(mbr []byte, start, length int64) error {
	const (
		table, entries, entrySize = 446, 4, 16
		kindAt, startAt, lengthAt = 4, 8, 12
		linux, protective         = 0x83, 0xee
	)
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return &NoRoom{"the image has no partition table"}
	}
	if start+length > 1<<32-1 {
		return &NoRoom{"the image is too large for its partition table"}
	}
	var free []byte
	for i := range entries {
		entry := mbr[table+i*entrySize : table+(i+1)*entrySize]
		// A hybrid ISO's own partition has the type 0: only one without a length is free.
		if binary.LittleEndian.Uint32(entry[lengthAt:]) == 0 && free == nil {
			free = entry
		}
		if entry[kindAt] == protective {
			return &NoRoom{"the image has a partition table of the type GPT, to which nothing is added"}
		}
	}
	if free == nil {
		return &NoRoom{"the image's partition table is full"}
	}
	copy(free, []byte{0, 0xfe, 0xff, 0xff, linux, 0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(free[startAt:], uint32(start))
	binary.LittleEndian.PutUint32(free[lengthAt:], uint32(length))
	return nil
}

// Fits tells whether an image, as an ISO's volume ID tells, was made for the host. The ID holds the
// beginning of a long name only. known is false if k3splan did not make the image.
func Fits(image io.ReaderAt, host string) (fits, known bool, err error) {
	// ISO 9660: the primary volume descriptor is in sector 16 of 2048 bytes
	descriptor := make([]byte, 72)
	if _, err := image.ReadAt(descriptor, 16*2048); err != nil {
		if errors.Is(err, io.EOF) {
			return false, false, nil
		}
		return false, false, fmt.Errorf("read the image: %w", err)
	}
	if string(descriptor[1:6]) != "CD001" {
		return false, false, nil
	}
	id := strings.TrimRight(string(descriptor[40:72]), " \x00")
	name, known := strings.CutPrefix(id, volumePrefix)
	const longest = 24 // characters of a name
	return known && name == host[:min(len(host), longest)], known, nil
}
