package stick

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/diag"

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
	typed := func(text string) []asktest.Answer { return []asktest.Answer{{Question: "erase /dev/sdb", Text: text}} }
	for name, test := range map[string]struct {
		disk   Disk
		answer []asktest.Answer
		yes    bool
		err    error  // nil: confirmed
		text   string // of the error
	}{
		"the name":        {disk: stick, answer: typed("olaf")},
		"a forced disk":   {disk: fixed, answer: typed("olaf")},
		"another name":    {disk: stick, answer: typed("ulf"), err: ask.ErrDeclined},
		"yes":             {disk: stick, answer: typed("yes"), err: ask.ErrDeclined},
		"only enter":      {disk: stick, answer: typed(""), err: ask.ErrDeclined},
		"no terminal":     {disk: stick, answer: []asktest.Answer{{Question: "erase", Err: ask.ErrNoTerminal}}, err: ask.ErrNoTerminal},
		"--yes":           {disk: stick, yes: true},
		"--yes, USB disk": {disk: fixed, yes: true, err: ErrRefused, text: "--yes is accepted for removable USB devices only, which /dev/sdb is not"},
		"--yes, SATA":     {disk: sata, yes: true, err: ErrRefused, text: "--yes is accepted for removable USB devices only, which /dev/sdb is not"},
	} {
		t.Run(name, func(t *testing.T) {
			user := asktest.New(t, test.answer...)
			err := Confirm(t.Context(), user, &Target{Disk: test.disk}, "olaf", test.yes)
			for _, part := range []string{"/dev/sdb", "SanDisk Ultra", "31.9 GB", "4C530", "PHOTOS", "vfat"} {
				require.True(t, user.Saw(part), "what will be erased is shown in any case: %s", part)
			}
			if test.err == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, test.err)
			require.ErrorIs(t, err, ErrRefused, "nothing was changed")
			require.ErrorContains(t, err, test.text)
			require.NotEmpty(t, diag.HintOf(err))
		})
	}
	t.Run("Ctrl-C", func(t *testing.T) {
		user := asktest.New(t, asktest.Answer{Question: "erase", Err: ask.ErrInterrupted})
		err := Confirm(t.Context(), user, &Target{Disk: stick}, "olaf", false)
		failure := requireFailure(t, err, Cancelled)
		require.False(t, failure.Touched)
	})
	t.Run("a broken terminal", func(t *testing.T) {
		broken := errors.New("broken")
		user := asktest.New(t, asktest.Answer{Question: "erase", Err: broken})
		err := Confirm(t.Context(), user, &Target{Disk: stick}, "olaf", false)
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, ErrRefused)
	})
}

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
		require.Equal(t, boot+"rest", string(content), "it is read from the beginning")
		require.NoError(t, closeImage())
	})
	for name, test := range map[string]struct{ path, message, hint string }{
		"empty":       {write(""), "it has no boot sector", "--output FILE"},
		"text":        {write(strings.Repeat("text", 1000)), "it has no boot sector", "--output FILE"},
		"short":       {write(boot[:511]), "it has no boot sector", "--output FILE"},
		"zstd":        {write("\x28\xb5\x2f\xfd" + boot), "it is compressed with zstd", "unzstd"},
		"gzip":        {write("\x1f\x8b" + boot[2:]), "it is compressed with gzip", "gunzip"},
		"qcow2":       {write("QFI\xfb" + boot[4:]), "it is compressed with qcow2", "qemu-img"},
		"a directory": {t.TempDir(), "it is not a regular file", "iso/"},
		"a device":    {"/dev/null", "it is not a regular file", "iso/"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := OpenImage(test.path)
			require.ErrorIs(t, err, ErrRefused)
			require.EqualError(t, err, test.path+" is not a boot image: "+test.message)
			require.Contains(t, diag.HintOf(err), test.hint)
		})
	}
	t.Run("a pipe does not block", func(t *testing.T) {
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
