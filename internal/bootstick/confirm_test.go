package bootstick

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func alignedAt(buffer []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(buffer)))%alignment == 0
}

func TestConfirm(t *testing.T) {
	stick := Disk{Path: "/dev/sdb", Model: "SanDisk Ultra", Serial: "4C530", Size: 31914983424, Bus: "usb", Removable: true,
		Table: "dos", Contents: []Content{{Path: "/dev/sdb1", Kind: "vfat", Label: "PHOTOS", Size: 31e9}}}
	fixed := stick
	fixed.Removable = false
	sata := stick
	sata.Bus = "sata"
	for name, test := range map[string]struct {
		disk        Disk
		in          string
		interactive bool
		yes         bool
		err         string // empty: confirmed
	}{
		"the name":                    {disk: stick, in: "olaf\n", interactive: true},
		"the name with blanks":        {disk: stick, in: "  olaf \r\n", interactive: true},
		"the name without a newline":  {disk: stick, in: "olaf", interactive: true},
		"a forced disk":               {disk: fixed, in: "olaf\n", interactive: true},
		"another name":                {disk: stick, in: "ulf\n", interactive: true, err: `the answer was "ulf" and not "olaf": nothing was written`},
		"yes":                         {disk: stick, in: "yes\n", interactive: true, err: `the answer was "yes" and not "olaf": nothing was written`},
		"only enter":                  {disk: stick, in: "\nolaf\n", interactive: true, err: `the answer was "" and not "olaf": nothing was written`},
		"nothing":                     {disk: stick, interactive: true, err: `the answer was "" and not "olaf": nothing was written`},
		"commands for the terminal":   {disk: stick, in: "\x1b[2J\n", interactive: true, err: `the answer was "\x1b[2J" and not "olaf": nothing was written`},
		"a pipe":                      {disk: stick, in: "olaf\n", err: "nobody can be asked: the input is not a terminal"},
		"--yes":                       {disk: stick, yes: true},
		"--yes with a fixed USB disk": {disk: fixed, yes: true, interactive: true, err: "--yes is for removable USB devices only, and /dev/sdb is none"},
		"--yes with a SATA disk":      {disk: sata, yes: true, interactive: true, err: "--yes is for removable USB devices only, and /dev/sdb is none"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Confirm(t.Context(), Terminal{strings.NewReader(test.in), &out, test.interactive}, &Target{Disk: test.disk}, "olaf", test.yes)
			for _, part := range []string{"/dev/sdb", "SanDisk Ultra", "31.9 GB", "4C530", "PHOTOS", "vfat"} {
				require.Contains(t, out.String(), part, "what will be erased is shown in any case")
			}
			asked := strings.Contains(out.String(), "type the host's name, olaf, to erase /dev/sdb")
			require.Equal(t, test.interactive && !test.yes, asked)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			var unconfirmed *Unconfirmed
			require.ErrorAs(t, err, &unconfirmed)
			require.EqualError(t, err, test.err)
			require.NotEmpty(t, unconfirmed.Hint())
		})
	}
	t.Run("Ctrl-C", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, keys := io.Pipe()
		defer keys.Close()
		var out writerFunc = func(p []byte) (int, error) {
			if bytes.Contains(p, []byte("type the host's name")) {
				cancel()
			}
			return len(p), nil
		}
		err := Confirm(ctx, Terminal{in, out, true}, &Target{Disk: stick}, "olaf", false)
		var failure *Failure
		require.ErrorAs(t, err, &failure)
		require.Equal(t, Cancelled, failure.Kind)
		require.False(t, failure.Touched)
	})
	t.Run("a broken terminal", func(t *testing.T) {
		broken := errors.New("broken")
		err := Confirm(t.Context(), Terminal{iotest.ErrReader(broken), io.Discard, true}, &Target{Disk: stick}, "olaf", false)
		require.ErrorIs(t, err, broken)
		var out writerFunc = func([]byte) (int, error) { return 0, broken }
		require.ErrorIs(t, Confirm(t.Context(), Terminal{nil, out, true}, &Target{Disk: stick}, "olaf", true), broken, "what is not shown is not confirmed")
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestOpenImage(t *testing.T) {
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "test.iso")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	boot := strings.Repeat("x", 510) + "\x55\xaa"
	t.Run("a boot sector", func(t *testing.T) {
		path := write(boot + "rest")
		image, closeImage, err := OpenImage(path)
		require.NoError(t, err)
		require.Equal(t, path, image.Name)
		require.EqualValues(t, 516, image.Size)
		content, err := io.ReadAll(image.Reader)
		require.NoError(t, err)
		require.Equal(t, boot+"rest", string(content), "it is read from its beginning")
		require.NoError(t, closeImage())
	})
	for name, test := range map[string]struct{ path, message, hint string }{
		"empty":       {write(""), "it has no boot sector", "--output FILE"},
		"text":        {write(strings.Repeat("text", 1000)), "it has no boot sector", "--output FILE"},
		"short":       {write(boot[:511]), "it has no boot sector", "--output FILE"},
		"zstd":        {write("\x28\xb5\x2f\xfd" + boot), "it is packed with zstd", "unzstd"},
		"gzip":        {write("\x1f\x8b" + boot[2:]), "it is packed with gzip", "gunzip"},
		"qcow2":       {write("QFI\xfb" + boot[4:]), "it is packed with qcow2", "qemu-img"},
		"a directory": {t.TempDir(), "it is not a regular file", "iso/"},
		"a device":    {"/dev/null", "it is not a regular file", "iso/"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := OpenImage(test.path)
			var no *NoImage
			require.ErrorAs(t, err, &no)
			require.Equal(t, test.message, no.Message)
			require.Contains(t, no.Hint(), test.hint)
		})
	}
	t.Run("a pipe does not hang it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "pipe")
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, _, err := OpenImage(path)
		require.ErrorContains(t, err, "it is not a regular file")
	})
	t.Run("missing", func(t *testing.T) {
		_, _, err := OpenImage(filepath.Join(t.TempDir(), "missing.iso"))
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}
