package stick

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// This writer of ext2 is our own because the partition must come out of a program without root, mkfs or a
// mount, with owners and modes that only root could otherwise set; it makes one small file system of a fixed
// layout, which e2fsck and the kernel check in the tests.

// The layout: one group of ext2Blocks, as "The Second Extended File System" (kernel.org,
// Documentation/filesystems/ext2) describes it, revision 1.
const (
	ext2BlockSize = 1024 // bytes
	ext2Blocks    = 4096
	ext2Inodes    = 64
	ext2InodeSize = 128 // bytes

	superBlock   = 1
	groupBlock   = 2
	blockBitmap  = 3
	inodeBitmap  = 4
	inodeTable   = 5
	firstData    = inodeTable + ext2Inodes*ext2InodeSize/ext2BlockSize
	rootInode    = 2
	firstInode   = 11
	directBlocks = 12

	modeDir, modeFile = 0x4000, 0x8000
	kindFile, kindDir = 1, 2
)

// ext2 is a file system under construction. Everything in it belongs to root, and no other user can read it.
type ext2 struct {
	data      []byte
	nextBlock int
	nextInode int
	entries   map[int][]entry // by the directory's inode
	err       error
}

type entry struct {
	inode int
	kind  byte
	name  string
}

func newExt2(label string, id []byte) *ext2 {
	e := &ext2{data: make([]byte, ext2Blocks*ext2BlockSize), nextBlock: firstData, nextInode: firstInode, entries: map[int][]entry{}}
	super := e.block(superBlock)
	copy(super[104:120], id)
	copy(super[120:136], label)
	e.entries[rootInode] = []entry{{rootInode, kindDir, "."}, {rootInode, kindDir, ".."}}
	e.directory(rootInode, "lost+found")
	return e
}

func (e *ext2) block(n int) []byte { return e.data[n*ext2BlockSize : (n+1)*ext2BlockSize] }

func (e *ext2) inode(n int) []byte {
	return e.data[inodeTable*ext2BlockSize+(n-1)*ext2InodeSize:][:ext2InodeSize]
}

func (e *ext2) directory(parent int, name string) (inode int) {
	inode = e.add(parent, name, kindDir)
	e.entries[inode] = []entry{{inode, kindDir, "."}, {parent, kindDir, ".."}}
	return inode
}

func (e *ext2) file(parent int, name string, content []byte) {
	e.fill(e.add(parent, name, kindFile), modeFile|0o400, 1, content)
}

func (e *ext2) add(parent int, name string, kind byte) (inode int) {
	if e.nextInode > ext2Inodes {
		e.fail("too many files")
		return ext2Inodes
	}
	inode = e.nextInode
	e.nextInode++
	e.entries[parent] = append(e.entries[parent], entry{inode, kind, name})
	return inode
}

func (e *ext2) fail(message string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s", message)
	}
}

// fill writes an inode and its content.
func (e *ext2) fill(n, mode, links int, content []byte) {
	count := (len(content) + ext2BlockSize - 1) / ext2BlockSize
	if count > directBlocks {
		e.fail(fmt.Sprintf("a file has %d bytes; the limit is %d", len(content), directBlocks*ext2BlockSize))
		return
	}
	inode := e.inode(n)
	binary.LittleEndian.PutUint16(inode[0:], uint16(mode))
	binary.LittleEndian.PutUint32(inode[4:], uint32(len(content)))
	binary.LittleEndian.PutUint16(inode[26:], uint16(links))
	binary.LittleEndian.PutUint32(inode[28:], uint32(count*ext2BlockSize/512))
	for i := range count {
		copy(e.block(e.nextBlock), content[i*ext2BlockSize:])
		binary.LittleEndian.PutUint32(inode[40+4*i:], uint32(e.nextBlock))
		e.nextBlock++
	}
}

// bytes completes the file system.
func (e *ext2) bytes() ([]byte, error) {
	for _, n := range slices.Sorted(maps.Keys(e.entries)) {
		// as many links as entries that are directories: "." counts for itself, ".." for the entry in the
		// parent, and each child for that child's ".."
		links := 0
		for _, entry := range e.entries[n] {
			if entry.kind == kindDir {
				links++
			}
		}
		content, ok := encodeDirectory(e.entries[n])
		if !ok {
			e.fail("a directory has too many files")
		}
		e.fill(n, modeDir|0o700, links, content)
	}
	if e.err != nil {
		return nil, e.err
	}
	e.finish()
	return e.data, nil
}

// encodeDirectory returns the one block of a directory; its last entry reaches to the end.
func encodeDirectory(entries []entry) (block []byte, ok bool) {
	block = make([]byte, ext2BlockSize)
	at := 0
	for i, entry := range entries {
		length := (8 + len(entry.name) + 3) / 4 * 4
		if at+length > ext2BlockSize {
			return nil, false
		}
		record := block[at:]
		at += length
		if i == len(entries)-1 {
			length += ext2BlockSize - at
		}
		binary.LittleEndian.PutUint32(record[0:], uint32(entry.inode))
		binary.LittleEndian.PutUint16(record[4:], uint16(length))
		record[6], record[7] = byte(len(entry.name)), entry.kind
		copy(record[8:], entry.name)
	}
	return block, true
}

// finish writes the counters and bitmaps of what is used.
func (e *ext2) finish() {
	usedInodes := e.nextInode - 1
	freeBlocks, freeInodes := ext2Blocks-e.nextBlock, ext2Inodes-usedInodes
	// block 0 is outside of the group; what is beyond the end counts as used
	setBits(e.block(blockBitmap), 0, e.nextBlock-1)
	setBits(e.block(blockBitmap), ext2Blocks-1, 8*ext2BlockSize)
	setBits(e.block(inodeBitmap), 0, usedInodes)
	setBits(e.block(inodeBitmap), ext2Inodes, 8*ext2BlockSize)

	group := e.block(groupBlock)
	for i, value := range []uint32{blockBitmap, inodeBitmap, inodeTable} {
		binary.LittleEndian.PutUint32(group[4*i:], value)
	}
	for i, value := range []int{freeBlocks, freeInodes, len(e.entries)} {
		binary.LittleEndian.PutUint16(group[12+2*i:], uint16(value))
	}

	super := e.block(superBlock)
	const perGroup = 8 * ext2BlockSize // as many as a bitmap has bits
	for at, value := range map[int]uint32{
		0: ext2Inodes, 4: ext2Blocks, 12: uint32(freeBlocks), 16: uint32(freeInodes), 20: superBlock,
		32: perGroup, 36: perGroup, 40: ext2Inodes,
		76: 1,          // revision
		84: firstInode, // not reserved
		96: 2,          // directory entries have a type
	} {
		binary.LittleEndian.PutUint32(super[at:], value)
	}
	for at, value := range map[int]uint16{
		54: 0xffff, // no check by the number of mounts
		56: 0xef53, // ext2
		58: 1,      // clean
		60: 2,      // after an error: read-only
		88: ext2InodeSize,
	} {
		binary.LittleEndian.PutUint16(super[at:], value)
	}
}

// setBits sets the bits from first to before end.
func setBits(bitmap []byte, first, end int) {
	for bit := first; bit < end; bit++ {
		bitmap[bit/8] |= 1 << (bit % 8)
	}
}
