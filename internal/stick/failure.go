package stick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"k3splan/internal/diag"
)

// ErrRefused is in the chain of every error that ended the work before anything was changed and would
// end it again in the same way: a wrong request, a device that must not be written to, an unusable
// image, a host that the installer cannot install.
var ErrRefused = errors.New("refused")

// refusal is an error that is an [ErrRefused] without mentioning it in its text.
type refusal struct{ error }

func (r refusal) Unwrap() error        { return r.error }
func (r refusal) Is(target error) bool { return target == ErrRefused }

// refuse returns an [ErrRefused] with advice.
func refuse(hint, format string, args ...any) error {
	return diag.WithHint(refusal{fmt.Errorf(format, args...)}, hint)
}

// Kind is what ended a write, or prevented it.
type Kind string

const (
	Denied    Kind = "denied"    // this user may not write to the device
	Busy      Kind = "busy"      // another program uses the device
	Replaced  Kind = "replaced"  // it is not the device that was shown
	BadImage  Kind = "image"     // the image is unusable, or could not be read to its end
	Full      Kind = "full"      // the device ended before the image (ENOSPC)
	Broken    Kind = "broken"    // the device reported an error (EIO, …)
	Vanished  Kind = "vanished"  // the device was unplugged
	Different Kind = "different" // what was read back is not what was written
	Cancelled Kind = "cancelled" // the user or the caller ended it
)

// kinds are the message and the advice for each Kind.
var kinds = map[Kind]struct{ what, hint string }{
	Denied:    {"no permission to write to it", "run k3splan as root or as a member of the group that owns the device; it never calls sudo itself"},
	Busy:      {"another program is using it", "close file managers and disk tools, unmount it, then try again"},
	Replaced:  {"it is not the device that was shown: it was unplugged or replaced by another one", "check `k3splan boot-stick --list` and start again"},
	BadImage:  {"the image cannot be used", "build the image again or name another one with --image FILE"},
	Full:      {"the device is full", "use another stick: this one is smaller than it claims"},
	Broken:    {"the device failed", "try another port, then another stick"},
	Vanished:  {"the device is no longer there", "plug it in again, into another port if this repeats"},
	Different: {"what was read back is not what was written", "use another stick: this one loses data, or is smaller than it claims"},
	Cancelled: {"cancelled", "run the same command again"},
}

// Failure is the error when no usable stick was made. There is never a usable stick after a Failure: the
// first block, without which nothing boots from the device, is written after everything else was read
// back and found equal.
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
	text := fmt.Sprintf("%s was not written: %s", f.Device, kinds[f.Kind].what)
	if f.Offset >= 0 {
		text += fmt.Sprintf(" (at byte %d)", f.Offset)
	}
	if f.Err != nil && f.Kind != Cancelled {
		text += ": " + f.Err.Error()
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// advised returns the failure with advice, which says whether the device was changed.
func (f *Failure) advised() error {
	if f.Touched {
		return diag.WithHint(f, kinds[f.Kind].hint+"; its old content is lost and it does not boot")
	}
	return diag.WithHint(f, kinds[f.Kind].hint+"; it was not changed")
}

// classify returns the Kind of an error of the device. An unplugged device shows itself in many ways: as
// EIO, or as ENOSPC or the end of the file because its size is 0 now, so presence decides first.
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

// classifyOpen is classify for an error of opening the device.
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

// vanished reports whether a device or process disappeared while it was being inspected.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ESRCH)
}
