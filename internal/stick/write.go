package stick

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"time"
	"unsafe"
)

const (
	// blockSize is how much is written and read at once, in bytes; a multiple of every sector size.
	blockSize = 4 << 20
	// tailSize is how much is blanked at the end of the device, in bytes. The second partition table of GPT
	// and the signatures of old RAID arrays are there, and would become active beside the image.
	tailSize = 1 << 20
	// alignment of buffers in memory, in bytes, as direct I/O wants it.
	alignment = 4096
	// ahead is how many blocks are in flight at once.
	ahead = 3
)

// Phase is a part of the work.
type Phase string

const (
	Writing   Phase = "writing"
	Verifying Phase = "verifying"
)

// Progress is how far a phase has come.
type Progress struct {
	Phase Phase
	Done  int64   // bytes
	Total int64   // bytes, the same for both phases
	Rate  float64 // bytes a second, over the last seconds; 0 if it is not known yet
	// Remaining is what is left of this phase, 0 if it is not known yet.
	Remaining time.Duration
}

// Report is what was done.
type Report struct {
	Bytes  int64 // of the image, padded to a whole sector
	Write  time.Duration
	Verify time.Duration
	// Warning is not empty if the stick is good, but the kernel still shows its old partitions until it is
	// unplugged.
	Warning string
}

// device is what a write needs of a block device. Offsets and lengths are multiples of Sector.
type device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	DropCache() error
	RereadTable() error
	Present() bool
	Size() int64   // bytes
	Sector() int64 // bytes
}

// Write writes the image to the target, reads everything back past the caches and compares, and makes the
// kernel read the new partition table. progress may be nil; it is called from one goroutine at a time, a few
// times a second, and at the beginning and end of each phase.
//
// Before the first byte it inspects the machine again. The error is a *[Refused] if the target must not be
// written to any more, or a *[Failure]; only without an error is the stick finished. A cancelled ctx ends it
// within one block. After an error the image may still be read from for a moment.
func Write(ctx context.Context, target *Target, image Image, progress func(Progress)) (Report, error) {
	if err := target.recheck(ctx, image.Size); err != nil {
		return Report{}, err
	}
	device, err := target.open(ctx)
	if err != nil {
		return Report{}, err
	}
	report, err := write(ctx, device, target.Disk.Path, image, progress)
	if closeErr := device.Close(); err == nil && closeErr != nil {
		return Report{}, (&Failure{Kind: Broken, Device: target.Disk.Path, Touched: true, Offset: -1, Err: closeErr}).advised()
	}
	return report, err
}

// recheck checks that the target is still what was shown, and still free.
func (t *Target) recheck(ctx context.Context, need int64) error {
	m, err := Inspect(ctx)
	if err != nil {
		return err
	}
	fail := func(kind Kind) error { return (&Failure{Kind: kind, Device: t.Disk.Path, Offset: -1}).advised() }
	n, err := m.find(t.Disk.Path)
	if err != nil {
		var refused *Refused
		if errors.As(err, &refused) && refused.Has(Missing) {
			return fail(Vanished)
		}
		return err
	}
	if m.identity(n) != t.identity {
		return fail(Replaced)
	}
	if refusals := m.judge(n, need, t.force); len(refusals) > 0 {
		return (&Refused{t.Disk.Path, refusals}).advised()
	}
	return nil
}

// write is Write on an opened device.
func write(ctx context.Context, device device, name string, image Image, progress func(Progress)) (report Report, err error) {
	if image.Size <= 0 || image.Size > device.Size() {
		return Report{}, (&Failure{Kind: BadImage, Device: name, Offset: -1,
			Err: fmt.Errorf("it has %d bytes and the device has %d", image.Size, device.Size())}).advised()
	}
	w := newWriter(device, name, image, progress)
	defer func() {
		if err != nil && w.touched && device.Present() {
			_ = device.RereadTable() // the old partitions do not exist any more; err matters
		}
	}()

	start := time.Now()
	if err := w.readHead(ctx); err != nil {
		return Report{}, err
	}
	if err := w.blank(ctx); err != nil {
		return Report{}, err
	}
	if err := w.copy(ctx); err != nil {
		return Report{}, err
	}
	report.Write = time.Since(start)
	start = time.Now()
	if err := w.verify(ctx); err != nil {
		return Report{}, err
	}
	if err := w.finish(ctx); err != nil {
		return Report{}, err
	}
	report.Verify = time.Since(start)
	report.Bytes = w.total
	if err := device.RereadTable(); err != nil {
		report.Warning = "the kernel still shows the old partitions: " + err.Error()
	}
	return report, nil
}

// writer is one write in progress. The first block is written last, so that a stick that is not finished and
// compared boots nowhere: until then it is blank.
type writer struct {
	device  device
	name    string
	image   Image
	report  func(Progress)
	total   int64 // bytes of the image, padded to a whole sector
	tail    int64 // where the blanked end of the device starts
	head    []byte
	sums    []uint64 // of each block as it must be read back, the first one blank
	seed    maphash.Seed
	touched bool
}

func newWriter(device device, name string, image Image, report func(Progress)) *writer {
	if report == nil {
		report = func(Progress) {}
	}
	sector := device.Sector()
	total := (image.Size + sector - 1) / sector * sector
	return &writer{
		device: device,
		name:   name,
		image:  image,
		report: report,
		total:  total,
		tail:   max(total, device.Size()-tailSize) / sector * sector,
		sums:   make([]uint64, (total+blockSize-1)/blockSize),
		seed:   maphash.MakeSeed(),
	}
}

// sum is a seeded hash, as fast as memory: it guards against chance and faulty sticks, and SHA-256 took
// longer than writing.
func (w *writer) sum(data []byte) uint64 { return maphash.Bytes(w.seed, data) }

func (w *writer) length(block int) int64 {
	return min(blockSize, w.total-int64(block)*blockSize)
}

// fail returns a failure at an offset, which is -1 where there is none.
func (w *writer) fail(kind Kind, offset int64, err error) error {
	return (&Failure{Kind: kind, Device: w.name, Touched: w.touched, Offset: offset, Err: err}).advised()
}

// failed returns the failure for an error of the device at an offset.
func (w *writer) failed(err error, offset int64) error {
	kind := classify(err, w.device.Present())
	if kind == Cancelled {
		offset = -1
	}
	return w.fail(kind, offset, err)
}

// fetch reads a block of the image and pads its last sector.
func (w *writer) fetch(block int, buffer []byte) ([]byte, error) {
	data := buffer[:w.length(block)]
	want := min(int64(len(data)), w.image.Size-int64(block)*blockSize)
	n, err := io.ReadFull(w.image.Reader, data[:want])
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("it ends after %d of %d bytes", int64(block)*blockSize+int64(n), w.image.Size)
		}
		return nil, w.fail(BadImage, -1, fmt.Errorf("read %s: %w", w.image.Name, err))
	}
	clear(data[want:])
	if block == len(w.sums)-1 {
		if n, err := io.ReadFull(w.image.Reader, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return nil, w.fail(BadImage, -1, fmt.Errorf("read %s: it does not end after %d bytes", w.image.Name, w.image.Size))
		}
	}
	return data, nil
}

// readHead reads the first block before anything is touched, so that an unreadable image costs no stick.
func (w *writer) readHead(ctx context.Context) error {
	_, err := pipe(ctx, 0, 1, w.fetch, func(_ int, data []byte) error {
		w.head = data
		return nil
	})
	return w.cancelled(ctx, err)
}

// cancelled turns the end of ctx into a failure.
func (w *writer) cancelled(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return w.fail(Cancelled, -1, context.Cause(ctx))
	}
	return err
}

// blank overwrites the first block and the end of the device with zeros.
func (w *writer) blank(ctx context.Context) error {
	if ctx.Err() != nil {
		return w.fail(Cancelled, -1, context.Cause(ctx))
	}
	w.touched = true
	zeros := aligned(blockSize)
	first := zeros[:w.length(0)]
	w.sums[0] = w.sum(first)
	if _, err := w.device.WriteAt(first, 0); err != nil {
		return w.failed(err, 0)
	}
	if rest := zeros[:w.device.Size()-w.tail]; len(rest) > 0 {
		if _, err := w.device.WriteAt(rest, w.tail); err != nil {
			return w.failed(err, w.tail)
		}
	}
	return nil
}

// copy writes everything but the first block.
func (w *writer) copy(ctx context.Context) error {
	meter := newMeter(Writing, w.total, w.report)
	meter.add(w.length(0))
	fill := func(block int, buffer []byte) ([]byte, error) {
		data, err := w.fetch(block, buffer)
		if err == nil {
			w.sums[block] = w.sum(data)
		}
		return data, err
	}
	drain := func(block int, data []byte) error {
		offset := int64(block) * blockSize
		if _, err := w.device.WriteAt(data, offset); err != nil {
			return w.failed(err, offset)
		}
		meter.add(int64(len(data)))
		return nil
	}
	// A read of the image may still be running then, and can hang: do not wait for it.
	_, err := pipe(ctx, 1, len(w.sums), fill, drain)
	if err := w.cancelled(ctx, err); err != nil {
		return err
	}
	if err := w.device.Sync(); err != nil {
		return w.failed(err, -1)
	}
	meter.end()
	return nil
}

// verify reads everything back. The first block and the end must be blank: on a stick that claims more than
// it holds, a later block has overwritten them.
func (w *writer) verify(ctx context.Context) error {
	if err := w.device.DropCache(); err != nil {
		return w.failed(err, -1)
	}
	meter := newMeter(Verifying, w.total, w.report)
	fill := func(block int, buffer []byte) ([]byte, error) {
		data, offset := buffer[:w.length(block)], int64(block)*blockSize
		if _, err := w.device.ReadAt(data, offset); err != nil {
			return nil, w.failed(err, offset)
		}
		return data, nil
	}
	drain := func(block int, data []byte) error {
		if w.sum(data) != w.sums[block] {
			return w.fail(Different, int64(block)*blockSize, nil)
		}
		meter.add(int64(len(data)))
		return nil
	}
	ended, err := pipe(ctx, 0, len(w.sums), fill, drain)
	<-ended // the caller closes the device
	if err := w.cancelled(ctx, err); err != nil {
		return err
	}
	if size := w.device.Size() - w.tail; size > 0 {
		rest := aligned(int(size))
		if _, err := w.device.ReadAt(rest, w.tail); err != nil {
			return w.failed(err, w.tail)
		}
		if !bytes.Equal(rest, make([]byte, size)) {
			return w.fail(Different, w.tail, nil)
		}
	}
	meter.end()
	return nil
}

// finish writes the first block and compares it. If that fails, it tries to blank it again: half of it could
// be enough to boot.
func (w *writer) finish(ctx context.Context) (err error) {
	if ctx.Err() != nil {
		return w.fail(Cancelled, -1, context.Cause(ctx))
	}
	defer func() {
		if err != nil && w.device.Present() {
			_, _ = w.device.WriteAt(aligned(len(w.head)), 0) // err is what matters
		}
	}()
	if _, err := w.device.WriteAt(w.head, 0); err != nil {
		return w.failed(err, 0)
	}
	if err := w.device.Sync(); err != nil {
		return w.failed(err, 0)
	}
	if err := w.device.DropCache(); err != nil {
		return w.failed(err, 0)
	}
	found := aligned(len(w.head))
	if _, err := w.device.ReadAt(found, 0); err != nil {
		return w.failed(err, 0)
	}
	if !bytes.Equal(found, w.head) {
		return w.fail(Different, 0, nil)
	}
	return nil
}

// pipe calls fill for each block from first to before end, in a goroutine and some blocks ahead, and drain
// with what fill returned, in order. It ends with the first error, or with that of ctx. ended is closed once
// fill is not running and will not be called any more.
func pipe(ctx context.Context, first, end int, fill func(block int, buffer []byte) ([]byte, error), drain func(block int, data []byte) error) (ended <-chan struct{}, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filling := make(chan struct{})
	type filled struct {
		data []byte
		err  error
	}
	free := make(chan []byte, ahead)
	full := make(chan filled)
	for range min(ahead, end-first) {
		free <- aligned(blockSize)
	}
	go func() {
		defer close(filling)
		for block := first; block < end; block++ {
			var next filled
			select {
			case buffer := <-free:
				next.data, next.err = fill(block, buffer)
			case <-ctx.Done():
				return
			}
			select {
			case full <- next:
			case <-ctx.Done():
				return
			}
			if next.err != nil {
				return
			}
		}
	}()
	for block := first; block < end; block++ {
		if err := ctx.Err(); err != nil {
			return filling, err
		}
		select {
		case next := <-full:
			if next.err != nil {
				return filling, next.err
			}
			if err := drain(block, next.data); err != nil {
				return filling, err
			}
			free <- next.data[:blockSize]
		case <-ctx.Done():
			return filling, ctx.Err()
		}
	}
	return filling, ctx.Err()
}

// aligned returns a buffer for direct I/O.
func aligned(size int) []byte {
	buffer := make([]byte, size+alignment)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(unsafe.SliceData(buffer))) % alignment); rest != 0 {
		skip = alignment - rest
	}
	return buffer[skip : skip+size : skip+size]
}
