package stick

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// failingFile is a file with a stretch that cannot be read, and one that cannot be written, served to the
// kernel over /dev/fuse: a loop device over it fails as a dying disk does.
type failingFile struct {
	mu                  sync.Mutex // over data
	data                []byte
	badReads, badWrites stretch
}

type stretch struct{ from, to int64 } // bytes

func (s stretch) hits(offset, size int64) bool { return offset < s.to && offset+size > s.from }

// mountFailing mounts the file and returns its path.
func mountFailing(t *testing.T, f *failingFile) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: FUSE without a helper program needs root")
	}
	kernel, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("SKIP: FUSE is not available: %v", err)
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	options := fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0", kernel)
	if err := unix.Mount("k3splan-test", path, "fuse", 0, options); err != nil {
		unix.Close(kernel)
		t.Skipf("SKIP: FUSE is not available: %v", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		f.serve(kernel)
	}()
	t.Cleanup(func() {
		require.NoError(t, unix.Unmount(path, 0))
		<-served // the kernel ends the connection with ENODEV
		require.NoError(t, unix.Close(kernel))
	})
	return path
}

// serve answers what a loop device asks of a file: linux/fuse.h, protocol 7.31.
func (f *failingFile) serve(kernel int) {
	const (
		forget, getattr, setattr, open, read, write, statfs, release, fsync, flush, start, interrupt, destroy, forgets = 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 36, 38, 42
		directIO                                                                                                       = 1 // past the page cache
		largest                                                                                                        = 1 << 20
	)
	buffer := make([]byte, largest+4096)
	little := binary.LittleEndian
	for {
		n, err := unix.Read(kernel, buffer)
		if err == unix.EINTR || err == unix.ENOENT { // ENOENT: the question was withdrawn
			continue
		}
		if err != nil {
			return
		}
		opcode, unique, body := little.Uint32(buffer[4:]), little.Uint64(buffer[8:]), buffer[40:n]
		var answer bytes.Buffer
		put := func(values ...any) {
			for _, value := range values {
				_ = binary.Write(&answer, little, value) // into memory
			}
		}
		failure := unix.Errno(0)
		f.mu.Lock()
		switch opcode {
		case start:
			put(uint32(7), uint32(31), uint32(0), uint32(0), uint16(8), uint16(8), uint32(largest), uint32(1), uint16(largest/4096), make([]byte, 34))
		case getattr, setattr:
			put(uint64(0), uint64(0), uint64(1), uint64(len(f.data)), uint64(0), make([]byte, 36), uint32(unix.S_IFREG|0o600), uint32(1), make([]byte, 20))
		case open:
			put(uint64(1), uint32(directIO), uint32(0))
		case read:
			offset, size := int64(little.Uint64(body[8:])), int64(little.Uint32(body[16:]))
			if f.badReads.hits(offset, size) {
				failure = unix.EIO
				break
			}
			put(f.data[offset : offset+size])
		case write:
			offset, size := int64(little.Uint64(body[8:])), int64(little.Uint32(body[16:]))
			if f.badWrites.hits(offset, size) {
				failure = unix.EIO
				break
			}
			copy(f.data[offset:], body[40:40+size])
			put(uint32(size), uint32(0))
		case statfs:
			put(make([]byte, 80))
		case release, fsync, flush, destroy:
		case forget, forgets, interrupt:
			f.mu.Unlock()
			continue
		default:
			failure = unix.ENOSYS
		}
		f.mu.Unlock()
		header := make([]byte, 16)
		little.PutUint32(header, uint32(16+answer.Len()))
		little.PutUint32(header[4:], uint32(-int32(failure)))
		little.PutUint64(header[8:], unique)
		_, _ = unix.Write(kernel, append(header, answer.Bytes()...)) // fails for a question that was withdrawn
	}
}

func TestLoopOnADyingDisk(t *testing.T) {
	const size = 32 * mib
	// Aligned to where a request starts: the kernel's loop driver treats a short write as a complete one.
	// (Reading back finds that, too.)
	bad := stretch{12 * mib, 13 * mib}
	for name, file := range map[string]*failingFile{
		"writes fail": {badWrites: bad},
		"reads fail":  {badReads: bad},
	} {
		t.Run(name, func(t *testing.T) {
			file.data = make([]byte, size)
			device := attach(t, mountFailing(t, file))
			report, err := Write(t.Context(), choose(t, device), imageOf(pattern(24*mib)), nil)
			failure := requireFailure(t, err, Broken)
			require.ErrorIs(t, err, unix.EIO)
			require.EqualValues(t, 12*mib, failure.Offset, err)
			require.True(t, failure.Touched)
			require.Zero(t, report)
			file.mu.Lock()
			defer file.mu.Unlock()
			requireAll(t, 0, file.data[:blockSize], "an unfinished stick must not boot")
		})
	}
}
