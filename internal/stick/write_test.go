package stick

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

// fakeDevice is a device in memory that can be made to fail.
type fakeDevice struct {
	mu     sync.Mutex
	data   []byte
	sector int64
	absent bool
	calls  []string

	onWrite func(d *fakeDevice, offset int64) error // before a write
	onRead  func(d *fakeDevice, offset int64) error
	onSync  func(d *fakeDevice) error
	reread  error
}

func newFake(size int64) *fakeDevice {
	return &fakeDevice{data: bytes.Repeat([]byte{0xee}, int(size)), sector: 512}
}

func (d *fakeDevice) check(p []byte, offset int64) error {
	if offset%d.sector != 0 || int64(len(p))%d.sector != 0 {
		return syscall.EINVAL
	}
	return nil
}

func (d *fakeDevice) WriteAt(p []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, "write")
	if err := d.check(p, offset); err != nil {
		return 0, err
	}
	if d.onWrite != nil {
		if err := d.onWrite(d, offset); err != nil {
			return 0, err
		}
	}
	n := copy(d.data[min(offset, int64(len(d.data))):], p)
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *fakeDevice) ReadAt(p []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(p, offset); err != nil {
		return 0, err
	}
	if d.onRead != nil {
		if err := d.onRead(d, offset); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.data[min(offset, int64(len(d.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *fakeDevice) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, "sync")
	if d.onSync != nil {
		return d.onSync(d)
	}
	return nil
}

func (d *fakeDevice) DropCache() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, "drop")
	return nil
}

func (d *fakeDevice) RereadTable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, "reread")
	return d.reread
}

func (d *fakeDevice) Present() bool { return !d.absent }
func (d *fakeDevice) Size() int64   { return int64(len(d.data)) }
func (d *fakeDevice) Sector() int64 { return d.sector }
func (d *fakeDevice) Close() error  { return nil }

// random returns bytes without any repetition.
var random = sync.OnceValue(func() []byte {
	data := make([]byte, 64*mib)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // cannot fail
	return data
})

// pattern copies the beginning of random.
func pattern(size int64) []byte {
	if size > 64*mib {
		return bytes.Repeat(random(), int(size/(64*mib)))
	}
	return bytes.Clone(random()[:size])
}

// requireAll requires every byte of data to be b.
func requireAll(t *testing.T, b byte, data []byte, message string) {
	t.Helper()
	require.True(t, len(data) == 0 || data[0] == b && bytes.Equal(data[:len(data)-1], data[1:]), message)
}

func imageOf(data []byte) Image {
	return Image{Name: "test.iso", Size: int64(len(data)), Reader: bytes.NewReader(data)}
}

const mib = 1 << 20

func TestWriteWhatIsRead(t *testing.T) {
	for name, test := range map[string]struct{ image, device, sector int64 }{
		"one byte":                   {1, 16 * mib, 512},
		"less than a block":          {mib + 1, 16 * mib, 512},
		"one block":                  {blockSize, 16 * mib, 512},
		"blocks and a rest":          {2*blockSize + 700, 16 * mib, 512},
		"many blocks and a rest":     {6*blockSize + 700, 32 * mib, 4096},
		"sectors of 4096":            {2*blockSize + 700, 16 * mib, 4096},
		"to the last byte":           {3 * blockSize, 3 * blockSize, 512},
		"to the last sector":         {3*blockSize - 5, 3 * blockSize, 4096},
		"into the blanked end":       {3*blockSize - mib/2, 3 * blockSize, 512},
		"up to the blanked end":      {3*blockSize - mib, 3 * blockSize, 512},
		"a device of odd size":       {blockSize + 3, 2*blockSize + 3*512, 512},
		"a device smaller than both": {700, 4096, 512},
	} {
		t.Run(name, func(t *testing.T) {
			data := pattern(test.image)
			device := newFake(test.device)
			device.sector = test.sector
			report, err := write(t.Context(), device, "/dev/fake", imageOf(data), nil)
			require.NoError(t, err)
			padded := (test.image + test.sector - 1) / test.sector * test.sector
			require.Equal(t, padded, report.Bytes)
			require.Empty(t, report.Warning)
			require.True(t, bytes.Equal(data, device.data[:test.image]))
			requireAll(t, 0, device.data[test.image:padded], "the last sector is filled up with zeros")
			tail := max(padded, test.device-tailSize)
			requireAll(t, 0, device.data[tail:], "nothing old is left at the end")
			requireAll(t, 0xee, device.data[padded:tail], "and nothing else is touched")
			require.Equal(t, "reread", device.calls[len(device.calls)-1])
		})
	}
}

// The first block makes a stick boot. It is written after everything else is compared, then flushed and
// compared itself.
func TestTheFirstBlockComesLast(t *testing.T) {
	device := newFake(16 * mib)
	data := pattern(9 * mib)
	verified := false
	var offsets []int64
	device.onWrite = func(d *fakeDevice, offset int64) error {
		offsets = append(offsets, offset)
		if bytes.Equal(d.data[4*mib:9*mib], data[4*mib:]) && verified {
			require.EqualValues(t, 0, offset)
			requireAll(t, 0, d.data[:blockSize], "blank")
		}
		return nil
	}
	device.onRead = func(d *fakeDevice, offset int64) error {
		verified = verified || offset == 8*mib
		return nil
	}
	_, err := write(t.Context(), device, "/dev/fake", imageOf(data), nil)
	require.NoError(t, err)
	require.True(t, verified)
	require.Equal(t, []int64{0, 15 * mib, 4 * mib, 8 * mib, 0}, offsets)
	require.Equal(t, []string{"write", "write", "write", "write", "sync", "drop", "write", "sync", "drop", "reread"}, device.calls)
}

func TestFailures(t *testing.T) {
	const size, third = 16 * mib, 8 * mib
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		breakIt func(d *fakeDevice)
		image   func(data []byte) Image
		kind    Kind
		offset  int64
		is      error
		intact  bool // the device was not touched
	}{
		"a bad block while writing": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, syscall.EIO, false) },
			kind:    Broken, offset: third, is: syscall.EIO,
		},
		"a bad block while reading": {
			breakIt: func(d *fakeDevice) { d.onRead = failAt(third, syscall.EIO, false) },
			kind:    Broken, offset: third, is: syscall.EIO,
		},
		"a full device": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, syscall.ENOSPC, false) },
			kind:    Full, offset: third, is: syscall.ENOSPC,
		},
		"unplugged: ENODEV": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, syscall.ENODEV, false) },
			kind:    Vanished, offset: third, is: syscall.ENODEV,
		},
		"unplugged: ENXIO while reading": {
			breakIt: func(d *fakeDevice) { d.onRead = failAt(third, syscall.ENXIO, false) },
			kind:    Vanished, offset: third, is: syscall.ENXIO,
		},
		"unplugged: the card is out": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, errNoMedium, false) },
			kind:    Vanished, offset: third,
		},
		"unplugged: EIO": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, syscall.EIO, true) },
			kind:    Vanished, offset: third, is: syscall.EIO,
		},
		"unplugged: no space, for its size is 0": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(third, syscall.ENOSPC, true) },
			kind:    Vanished, offset: third,
		},
		"unplugged: nothing to read, for its size is 0": {
			breakIt: func(d *fakeDevice) { d.onRead = failAt(third, io.EOF, true) },
			kind:    Vanished, offset: third,
		},
		"the first write fails": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(0, syscall.EIO, false) },
			kind:    Broken, offset: 0,
		},
		"the end cannot be blanked": {
			breakIt: func(d *fakeDevice) { d.onWrite = failAt(size-tailSize, syscall.EIO, false) },
			kind:    Broken, offset: size - tailSize,
		},
		"the end cannot be read": {
			breakIt: func(d *fakeDevice) { d.onRead = failAt(size-tailSize, syscall.EIO, false) },
			kind:    Broken, offset: size - tailSize,
		},
		"the cache cannot be flushed": {
			breakIt: func(d *fakeDevice) { d.onSync = func(*fakeDevice) error { return syscall.EIO } },
			kind:    Broken, offset: -1,
		},
		"the last write fails": {
			breakIt: func(d *fakeDevice) {
				d.onWrite = func(d *fakeDevice, offset int64) error {
					if offset == 0 && len(d.calls) > 5 {
						return syscall.EIO
					}
					return nil
				}
			},
			kind: Broken, offset: 0,
		},
		"a bit falls over": {
			breakIt: func(d *fakeDevice) {
				d.onSync = func(d *fakeDevice) error { d.data[third+17] ^= 4; return nil }
			},
			kind: Different, offset: third,
		},
		"a bit falls over in the first block": {
			breakIt: func(d *fakeDevice) {
				d.onSync = func(d *fakeDevice) error { d.data[17] ^= 4; return nil }
			},
			kind: Different, offset: 0,
		},
		"writes are lost": {
			breakIt: func(d *fakeDevice) {
				d.onSync = func(d *fakeDevice) error {
					copy(d.data[third:], bytes.Repeat([]byte{0xee}, mib))
					return nil
				}
			},
			kind: Different, offset: third,
		},
		"the device was written to behind our back": {
			breakIt: func(d *fakeDevice) {
				d.onSync = func(d *fakeDevice) error { d.data[size-1] = 1; return nil }
			},
			kind: Different, offset: size - tailSize,
		},
		"the image ends early": {
			image: func(data []byte) Image {
				return Image{Name: "test.iso", Size: int64(len(data)), Reader: bytes.NewReader(data[:third+5])}
			},
			kind: BadImage, offset: -1,
		},
		"the image goes on": {
			image: func(data []byte) Image {
				return Image{Name: "test.iso", Size: int64(len(data)) - 1, Reader: bytes.NewReader(data)}
			},
			kind: BadImage, offset: -1,
		},
		"the image cannot be read any more": {
			image: func(data []byte) Image {
				return Image{Name: "test.iso", Size: int64(len(data)), Reader: io.MultiReader(bytes.NewReader(data[:third]), iotest.ErrReader(boom))}
			},
			kind: BadImage, offset: -1, is: boom,
		},
		"the image cannot be read at all": {
			image: func(data []byte) Image {
				return Image{Name: "test.iso", Size: int64(len(data)), Reader: iotest.ErrReader(boom)}
			},
			kind: BadImage, offset: -1, is: boom, intact: true,
		},
		"the image ends in the first block": {
			image: func(data []byte) Image {
				return Image{Name: "test.iso", Size: int64(len(data)), Reader: bytes.NewReader(data[:5])}
			},
			kind: BadImage, offset: -1, intact: true,
		},
		"no image":       {image: func([]byte) Image { return Image{} }, kind: BadImage, offset: -1, intact: true},
		"a large image":  {image: func([]byte) Image { return Image{Size: size + 1} }, kind: BadImage, offset: -1, intact: true},
		"negative image": {image: func([]byte) Image { return Image{Size: -1} }, kind: BadImage, offset: -1, intact: true},
	} {
		t.Run(name, func(t *testing.T) {
			data := pattern(third + mib + 9)
			device := newFake(size)
			if test.breakIt != nil {
				test.breakIt(device)
			}
			image := imageOf(data)
			if test.image != nil {
				image = test.image(data)
			}
			report, err := write(t.Context(), device, "/dev/fake", image, nil)
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			require.Equal(t, test.kind, failure.Kind, err)
			require.Equal(t, test.offset, failure.Offset)
			require.Equal(t, !test.intact, failure.Touched)
			require.Zero(t, report, "no report, no stick")
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			}
			require.Contains(t, err.Error(), "/dev/fake was not written: ")
			if test.intact {
				require.Contains(t, diag.HintOf(err), "it was not changed")
				requireAll(t, 0xee, device.data, "untouched")
				return
			}
			require.Contains(t, diag.HintOf(err), "it does not boot")
			require.NotEqual(t, data[:512], device.data[:512], "an unfinished stick must not boot")
			if !device.absent {
				require.Equal(t, "reread", device.calls[len(device.calls)-1], "the old partitions are gone")
			}
		})
	}
}

// If even the first block cannot be written, the stick is blanked again.
func TestABadFirstBlockIsBlankedAgain(t *testing.T) {
	for name, end := range map[string]func(d *fakeDevice) error{
		"a bit falls over":            func(d *fakeDevice) error { d.data[17] ^= 4; return nil },
		"the cache cannot be flushed": func(*fakeDevice) error { return syscall.EIO },
	} {
		t.Run(name, func(t *testing.T) {
			device := newFake(16 * mib)
			syncs := 0
			device.onSync = func(d *fakeDevice) error {
				if syncs++; syncs == 2 {
					return end(d)
				}
				return nil
			}
			_, err := write(t.Context(), device, "/dev/fake", imageOf(pattern(9*mib)), nil)
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			require.EqualValues(t, 0, failure.Offset)
			requireAll(t, 0, device.data[:blockSize], "blank")
		})
	}
}

// failAt fails once the offset is reached, and can make the device vanish.
func failAt(at int64, err error, vanish bool) func(*fakeDevice, int64) error {
	return func(d *fakeDevice, offset int64) error {
		if offset != at {
			return nil
		}
		d.absent = vanish
		return err
	}
}

// A stick that claims more than it holds accepts every write: the address wraps around, and the last block
// overwrites the first.
func TestAStickThatClaimsMoreThanItHolds(t *testing.T) {
	for name, holds := range map[string]int64{"wraps into the image": 8 * mib, "wraps onto the first block only": 16 * mib} {
		t.Run(name, func(t *testing.T) {
			device := &wrappingDevice{newFake(holds), 32 * mib}
			data := pattern(20 * mib)
			_, err := write(t.Context(), device, "/dev/fake", imageOf(data), nil)
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			require.Equal(t, Different, failure.Kind)
		})
	}
}

type wrappingDevice struct {
	*fakeDevice
	claims int64
}

func (d *wrappingDevice) Size() int64 { return d.claims }
func (d *wrappingDevice) WriteAt(p []byte, offset int64) (int, error) {
	return d.fakeDevice.WriteAt(p, offset%int64(len(d.data)))
}
func (d *wrappingDevice) ReadAt(p []byte, offset int64) (int, error) {
	return d.fakeDevice.ReadAt(p, offset%int64(len(d.data)))
}

func TestCancel(t *testing.T) {
	data := pattern(24 * mib)
	for _, phase := range []Phase{Writing, Verifying} {
		t.Run(string(phase), func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("interrupt")
			device := newFake(32 * mib)
			report, err := write(ctx, device, "/dev/fake", imageOf(data), func(p Progress) {
				if p.Phase == phase {
					cancel(why)
				}
			})
			requireCancelled(t, err, true)
			require.ErrorIs(t, err, why)
			require.Zero(t, report)
			requireAll(t, 0, device.data[:blockSize], "an unfinished stick must not boot")
		})
	}
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		device := newFake(32 * mib)
		_, err := write(ctx, device, "/dev/fake", imageOf(data), nil)
		requireCancelled(t, err, false)
		requireAll(t, 0xee, device.data, "untouched")
	})
	for name, before := range map[string][]byte{"at the beginning": nil, "in the middle": data[:10*mib]} {
		t.Run("while the image hangs "+name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			stuck := make(chan struct{})
			defer close(stuck)
			var hanging readerFunc = func([]byte) (int, error) {
				time.AfterFunc(10*time.Millisecond, cancel)
				<-stuck
				return 0, io.EOF
			}
			image := Image{Name: "pipe", Size: 24 * mib, Reader: io.MultiReader(bytes.NewReader(before), hanging)}
			_, err := write(ctx, newFake(32*mib), "/dev/fake", image, nil)
			requireCancelled(t, err, before != nil)
		})
	}
}

func requireCancelled(t *testing.T, err error, touched bool) {
	t.Helper()
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, Cancelled, failure.Kind, err)
	require.Equal(t, touched, failure.Touched)
	require.EqualError(t, err, failure.Device+" was not written: cancelled")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A stick whose partition table the kernel does not read again is a good stick.
func TestAWarningIsNoFailure(t *testing.T) {
	device := newFake(8 * mib)
	device.reread = syscall.EBUSY
	report, err := write(t.Context(), device, "/dev/fake", imageOf(pattern(mib)), nil)
	require.NoError(t, err)
	require.Equal(t, "the kernel still shows the old partitions: device or resource busy", report.Warning)
}

func TestProgress(t *testing.T) {
	var seen []Progress
	_, err := write(t.Context(), newFake(32*mib), "/dev/fake", imageOf(pattern(17*mib)), func(p Progress) { seen = append(seen, p) })
	require.NoError(t, err)
	require.Equal(t, Progress{Phase: Writing, Total: 17 * mib}, seen[0])
	phase, done := Writing, int64(0)
	for _, p := range seen {
		if p.Phase != phase {
			require.Equal(t, Verifying, p.Phase)
			require.EqualValues(t, 17*mib, done, "a phase ends complete")
			phase, done = p.Phase, 0
		}
		require.GreaterOrEqual(t, p.Done, done)
		require.EqualValues(t, 17*mib, p.Total)
		done = p.Done
	}
	require.Equal(t, Verifying, phase)
	require.EqualValues(t, 17*mib, done)
	require.Zero(t, seen[len(seen)-1].Remaining)
}

func TestMeter(t *testing.T) {
	var seen []Progress
	now := time.Unix(0, 0)
	m := &meter{phase: Writing, total: 1000, report: func(p Progress) { seen = append(seen, p) }, now: func() time.Time { return now }}
	m.send(now)
	now = now.Add(100 * time.Millisecond)
	m.add(10)
	require.Len(t, seen, 1, "not more often than a few times a second")
	now = now.Add(900 * time.Millisecond)
	m.add(90)
	require.Equal(t, Progress{Writing, 100, 1000, 100, 9 * time.Second}, seen[1])
	for range rateOver { // the stick becomes slower: the rate follows
		now = now.Add(time.Second)
		m.add(10)
	}
	last := seen[len(seen)-1]
	require.Equal(t, Progress{Writing, 300, 1000, 10, 70 * time.Second}, last)
}

func TestAligned(t *testing.T) {
	for _, size := range []int{1, 512, 4096, blockSize, blockSize + 1} {
		buffer := aligned(size)
		require.Len(t, buffer, size)
		require.Equal(t, size, cap(buffer))
		require.True(t, alignedAt(buffer))
	}
}
