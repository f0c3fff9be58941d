package stick_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/stick"
)

const poison = "K10poison::server:0123456789abcdef"

func stickData() stick.Data {
	return stick.Data{Host: "olaf", Wipe: true, Secrets: map[string][]byte{
		"server-token": []byte(poison + "\n"), "passwd": []byte("$6$x\n"), "big": bytes.Repeat([]byte("0123456789abcde\n"), 500), "empty": {},
	}}
}

func need(t *testing.T, program string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/sbin", "/usr/sbin") {
		if path := filepath.Join(dir, program); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	t.Skipf("SKIP: %s is not on PATH", program)
	return ""
}

// The tools of those who made ext2 accept the file system.
func TestPartitionIsAFileSystem(t *testing.T) {
	e2fsck, debugfs := need(t, "e2fsck"), need(t, "debugfs") // Debian: e2fsprogs
	for _, c := range []stick.Data{stickData(), {Host: "olaf"}} {
		data, err := c.Partition()
		require.NoError(t, err)
		require.Len(t, data, stick.Size)
		file := filepath.Join(t.TempDir(), "partition")
		require.NoError(t, os.WriteFile(file, data, 0o600))

		out, err := exec.Command(e2fsck, "-f", "-n", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		show := func(command string) string {
			out, err := exec.Command(debugfs, "-R", command, file).Output()
			require.NoError(t, err)
			return string(out)
		}
		require.Equal(t, "olaf\n", show("cat /host"))
		require.Contains(t, show("show_super_stats -h"), "Filesystem volume name:   k3splan\n")
		for kind, secret := range c.Secrets {
			require.Equal(t, string(secret), show("cat /secrets/"+kind))
			require.Regexp(t, `Mode: +0400[^U]*User: +0 +Group: +0`, show("stat /secrets/"+kind), "for root alone")
		}
		require.Regexp(t, `Mode: +0700[^U]*User: +0 +Group: +0`, show("stat /"), "for root alone")
		require.Equal(t, c.Wipe, strings.Contains(show("ls -p /"), "/wipe/"))
	}
}

func TestSticksDiffer(t *testing.T) {
	one, err := stickData().Partition()
	require.NoError(t, err)
	other, err := stickData().Partition()
	require.NoError(t, err)
	require.NotEqual(t, one, other)
}

func TestTooMuchData(t *testing.T) {
	_, err := stick.Data{Host: "olaf", Secrets: map[string][]byte{"x": make([]byte, 20000)}}.Partition()
	require.ErrorContains(t, err, "20000 bytes")
}

// image is a hybrid ISO as far as its partition table goes.
func image(t *testing.T, size int64, change func(mbr []byte)) []byte {
	t.Helper()
	data := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(data)
	clear(data[446:510])
	data[510], data[511] = 0x55, 0xaa
	// as xorriso makes them: the whole image with type 0, and the EFI image within
	entry := func(i int, kind byte, start, length uint32) {
		at := data[446+16*i:]
		at[4] = kind
		binary.LittleEndian.PutUint32(at[8:], start)
		binary.LittleEndian.PutUint32(at[12:], length)
	}
	entry(0, 0, 0, uint32(size/512))
	entry(1, 0xef, 100, 200)
	if change != nil {
		change(data[:512])
	}
	return data
}

func TestAppend(t *testing.T) {
	data := image(t, 3<<20+2048, nil)
	partition, err := stickData().Partition()
	require.NoError(t, err)
	appended, err := stick.Append(stick.Image{Name: "x.iso", Size: int64(len(data)), Reader: bytes.NewReader(data)}, partition)
	require.NoError(t, err)
	got, err := io.ReadAll(appended.Reader)
	require.NoError(t, err)
	require.Len(t, got, int(appended.Size))

	require.Equal(t, data[:446+32], got[:446+32], "the image's own boot code and partitions")
	require.Equal(t, data[510:], got[510:len(data)], "the image")
	require.Equal(t, partition, got[4<<20:])
	require.Equal(t, 4<<20+stick.Size, len(got))
	require.True(t, bytes.Contains(got[len(data):], []byte(poison)), "the search can find it")
	require.False(t, bytes.Contains(got[:len(data)], []byte(poison)), "in its own partition only")

	sfdisk := need(t, "sfdisk") // Debian: fdisk
	file := filepath.Join(t.TempDir(), "stick")
	require.NoError(t, os.WriteFile(file, got, 0o600))
	out, err := exec.Command(sfdisk, "--json", file).Output()
	require.NoError(t, err)
	var table struct {
		PartitionTable struct {
			Partitions []struct {
				Node        string
				Start, Size int64
				Type        string
			}
		}
	}
	require.NoError(t, json.Unmarshal(out, &table))
	last := table.PartitionTable.Partitions[len(table.PartitionTable.Partitions)-1]
	require.Equal(t, file+"3", last.Node)
	require.Equal(t, int64(4<<20/512), last.Start)
	require.Equal(t, int64(stick.Size/512), last.Size)
	require.Equal(t, "83", last.Type)
}

func TestNoRoom(t *testing.T) {
	partition, err := stickData().Partition()
	require.NoError(t, err)
	for name, change := range map[string]func(mbr []byte){
		"has no partition table": func(mbr []byte) { mbr[510] = 0 },
		"GPT partition table":    func(mbr []byte) { mbr[446+4] = 0xee },
		"table is full": func(mbr []byte) {
			mbr[446+2*16+12], mbr[446+3*16+12] = 1, 1
		},
	} {
		data := image(t, 1<<20, change)
		_, err := stick.Append(stick.Image{Size: int64(len(data)), Reader: bytes.NewReader(data)}, partition)
		require.ErrorIs(t, err, stick.ErrRefused)
		require.ErrorContains(t, err, name)
		require.NotEmpty(t, diag.HintOf(err))
	}
}

func TestFits(t *testing.T) {
	iso := func(id string) io.ReaderAt {
		data := make([]byte, 17*2048)
		copy(data[16*2048:], "\x01CD001\x01")
		copy(data[16*2048+40:], id+strings.Repeat(" ", 32-len(id)))
		return bytes.NewReader(data)
	}
	long := strings.Repeat("a", 30)
	for _, test := range []struct {
		image       io.ReaderAt
		host        string
		fits, known bool
	}{
		{iso("k3splan-olaf"), "olaf", true, true},
		{iso("k3splan-olaf"), "ola", false, true},
		{iso("k3splan-olaf"), "ulf", false, true},
		{iso("k3splan-" + long[:24]), long, true, true},
		{iso("k3splan-" + long[:24]), long[:24], true, true},
		{iso("nixos-24.11"), "olaf", false, false},
		{bytes.NewReader(make([]byte, 17*2048)), "olaf", false, false},
		{bytes.NewReader(nil), "olaf", false, false},
	} {
		fits, known, err := stick.Fits(test.image, test.host)
		require.NoError(t, err)
		require.Equal(t, test.fits, fits)
		require.Equal(t, test.known, known)
	}
}
