package bootstick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// Kind says what ended a write, or kept it from starting.
type Kind string

const (
	Denied    Kind = "denied"    // this user may not write to the device
	Busy      Kind = "busy"      // another program has the device
	Replaced  Kind = "replaced"  // it is not the device that was shown
	BadImage  Kind = "image"     // the image is no image, or could not be read to its end
	Full      Kind = "full"      // the device ended before the image (ENOSPC)
	Broken    Kind = "broken"    // the device reported an error (EIO, …)
	Vanished  Kind = "vanished"  // the device was pulled
	Different Kind = "different" // what was read back is not what was written
	Cancelled Kind = "cancelled" // the person or the caller ended it
)

// Failure says why there is no finished stick. There is never a finished stick
// with a Failure: the first block, without which nothing boots from the device,
// is written after everything else was read back and found equal.
type Failure struct {
	Kind   Kind
	Device string
	// Touched is set once the old content of the device may be lost.
	Touched bool
	// Offset is where on the device it happened, in bytes, or -1.
	Offset int64
	Err    error // may be nil
}

func (f *Failure) Error() string {
	what := map[Kind]string{
		Denied:    "no permission to write to it",
		Busy:      "another program is using it",
		Replaced:  "it is not the device that was shown: it was taken out or another one was put in its place",
		BadImage:  "the image cannot be used",
		Full:      "the device is full",
		Broken:    "the device failed",
		Vanished:  "the device is gone",
		Different: "what was read back is not what was written",
		Cancelled: "it was cancelled",
	}[f.Kind]
	text := fmt.Sprintf("%s was not written: %s", f.Device, what)
	if f.Offset >= 0 {
		text += fmt.Sprintf(" (at byte %d)", f.Offset)
	}
	if f.Err != nil && f.Kind != Cancelled {
		text += ": " + f.Err.Error()
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// Hint says what can be done.
func (f *Failure) Hint() string {
	hint := map[Kind]string{
		Denied:    "run k3splan as root or as a member of the group that owns the device; it never calls sudo itself",
		Busy:      "close file managers and disk tools, unmount it, then try again",
		Replaced:  "look at `k3splan boot-stick --list` and start again",
		BadImage:  "build the image again or name another one with --image FILE",
		Full:      "take another stick: this one is smaller than it says",
		Broken:    "try another port, then another stick",
		Vanished:  "put it in again, in another port if this repeats",
		Different: "take another stick: this one does not keep what is written to it, or is smaller than it says",
		Cancelled: "start again whenever you like",
	}[f.Kind]
	if f.Touched {
		return hint + "; its old content is lost and it does not boot"
	}
	return hint + "; it was not changed"
}

// classify makes a failure out of what an operation on the device said. A
// pulled stick shows itself in many ways: as EIO, as ENOSPC or the end of the
// file because its size is 0 now, and so presence decides first.
func classify(err error, present bool) Kind {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Cancelled
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO), errors.Is(err, errNoMedium), !present:
		return Vanished
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrShortWrite):
		return Full
	case errors.Is(err, syscall.EBUSY):
		return Busy
	default:
		return Broken
	}
}

// classifyOpen does the same for opening.
func classifyOpen(err error) Kind {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return Denied
	case errors.Is(err, fs.ErrNotExist):
		return Vanished
	default:
		return classify(err, true)
	}
}

// gone reports that a device went away while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO)
}
