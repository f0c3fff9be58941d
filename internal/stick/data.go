package stick

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
)

const (
	// Label is the label of the file system in a stick's own partition.
	Label = "k3splan"
	// Size is the size of that partition, in bytes.
	Size = ext2Blocks * ext2BlockSize

	// volumePrefix comes before the host's name in the ISO's volume ID; templates/installer/image.nix
	// sets it.
	volumePrefix = "k3splan-"
	// volumeName is how much of the host's name the volume ID holds, in characters.
	volumeName = 24

	// tableSector is the sector size by which partition tables of images count, in bytes.
	tableSector = 512
	// partitionAlignment is where partitions may begin, in bytes.
	partitionAlignment = 1 << 20
)

// Data is what a boot stick carries beside the image: the image comes from the Nix store, which everyone
// can read, so the host's secrets and the permission to erase a disk are in a partition of their own
// behind it, which also has room for what the installer records.
//
// The partition is an ext2 file system, because that has owners: a machine that mounts whatever is
// plugged in shows its content to root alone. Its files:
//
//	host          the name of the host that the stick is for
//	id            random, distinguishes sticks
//	wipe          exists if a disk may be erased that is not blank
//	secrets/KIND  by the names of hive's secrets
//
// The installer (templates/installer/setup.sh) adds wiped, installed, history and setup.log.
type Data struct {
	Host string
	// Wipe allows the installer to erase a disk that is not blank, once.
	Wipe bool
	// Secrets are contents by kind.
	Secrets map[string][]byte
}

// Partition returns the bytes of the partition, [Size] of them. Two calls differ in the id.
func (d Data) Partition() ([]byte, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	fs := newExt2(Label, id)
	fs.file(rootInode, "host", []byte(d.Host+"\n"))
	fs.file(rootInode, "id", []byte(hex.EncodeToString(id)+"\n"))
	if d.Wipe {
		fs.file(rootInode, "wipe", []byte("A disk of "+d.Host+" may be erased, once.\n"))
	}
	secrets := fs.directory(rootInode, "secrets")
	for _, kind := range slices.Sorted(maps.Keys(d.Secrets)) {
		fs.file(secrets, kind, d.Secrets[kind])
	}
	data, err := fs.bytes()
	if err != nil {
		return nil, fmt.Errorf("make the stick's own partition: %w", err)
	}
	return data, nil
}

// kinds lists the secrets by name.
func (d Data) kinds() string {
	if len(d.Secrets) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(d.Secrets)), ", ")
}

// Append returns the image with a partition behind it, as [Data.Partition] makes them. The image's
// partition table gets an entry for it; no other byte of the image changes. The error is an [ErrRefused]
// if the image has no partition table of the usual form (that of a hybrid ISO).
func Append(image Image, partition []byte) (Image, error) {
	head := make([]byte, tableSector)
	if _, err := io.ReadFull(image.Reader, head); err != nil {
		return Image{}, fmt.Errorf("read %s: %w", image.Name, err)
	}
	start := (image.Size + partitionAlignment - 1) / partitionAlignment * partitionAlignment
	if err := addEntry(head, start/tableSector, int64(len(partition))/tableSector); err != nil {
		return Image{}, err
	}
	return Image{
		Name: image.Name,
		Size: start + int64(len(partition)),
		Reader: io.MultiReader(bytes.NewReader(head), io.LimitReader(image.Reader, image.Size-tableSector),
			bytes.NewReader(make([]byte, start-image.Size)), bytes.NewReader(partition)),
	}, nil
}

// addEntry adds a partition to an MBR. Start and length are in sectors.
func addEntry(mbr []byte, start, length int64) error {
	const (
		table, entries, entrySize = 446, 4, 16
		kindAt, startAt, lengthAt = 4, 8, 12
		linux, protective         = 0x83, 0xee

		hint = "use an image made by `k3splan boot-stick HOST --output FILE`"
	)
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return refuse(hint, "the image has no partition table")
	}
	if start+length > 1<<32-1 {
		return refuse(hint, "the image is too large for its partition table")
	}
	var free []byte
	for i := range entries {
		entry := mbr[table+i*entrySize : table+(i+1)*entrySize]
		// A hybrid ISO's own partition has the type 0: only an entry without a length is free.
		if binary.LittleEndian.Uint32(entry[lengthAt:]) == 0 && free == nil {
			free = entry
		}
		if entry[kindAt] == protective {
			return refuse(hint, "the image has a GPT partition table, to which no partition can be added")
		}
	}
	if free == nil {
		return refuse(hint, "the image's partition table is full")
	}
	copy(free, []byte{0, 0xfe, 0xff, 0xff, linux, 0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(free[startAt:], uint32(start))
	binary.LittleEndian.PutUint32(free[lengthAt:], uint32(length))
	return nil
}

// Fits reports whether an image was made for the host, according to the ISO's volume ID, which holds the
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
	return known && name == host[:min(len(host), volumeName)], known, nil
}
