package stick

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k3splan/internal/diag"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

// loadMachine reads a machine of testdata/machines: what lsblk, mountinfo, swaps and sysfs reported there.
// The comment of each file says what is real.
func loadMachine(t *testing.T, file string) (machine *Machine, verdicts string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	require.NoError(t, err)
	f := facts{backing: map[string]backing{}}
	var reported struct {
		Holders, Pools, Openers map[string][]string
		Imported                []string
		Backing                 map[string]string
	}
	for _, part := range archive.Files {
		switch part.Name {
		case "lsblk.json":
			f.nodes, err = parseLsblk(part.Data)
		case "mountinfo":
			f.mounts, err = parseMountinfo(string(part.Data))
		case "container-mountinfo":
			var mounts []mount
			mounts, err = parseMountinfo(string(part.Data))
			for i := range mounts {
				mounts[i].elsewhere = true
			}
			f.mounts = append(f.mounts, mounts...)
		case "swaps":
			f.swaps = parseSwaps(string(part.Data))
		case "facts.json":
			err = json.Unmarshal(part.Data, &reported)
		case "verdicts":
			verdicts = string(part.Data)
		default:
			t.Fatalf("%s: unknown part %s", file, part.Name)
		}
		require.NoError(t, err, "%s: %s", file, part.Name)
	}
	f.holders, f.pools, f.openers, f.imported = reported.Holders, reported.Pools, reported.Openers, reported.Imported
	for name, path := range reported.Backing {
		f.backing[name] = backing{path: path}
	}
	return newMachine(f), verdicts
}

// TestVerdicts judges the devices of every machine in testdata/machines; its lines "DEVICE [force=NAME]
// [need=BYTES]: REASON…" are the expected verdicts.
func TestVerdicts(t *testing.T) {
	files, err := filepath.Glob("testdata/machines/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			machine, verdicts := loadMachine(t, file)
			require.NotEmpty(t, verdicts)
			for line := range strings.Lines(verdicts) {
				question, want, ok := strings.Cut(strings.TrimSpace(line), ": ")
				require.True(t, ok, line)
				words := strings.Fields(question)
				need, force := int64(0), ""
				for _, word := range words[1:] {
					key, value, _ := strings.Cut(word, "=")
					switch key {
					case "need":
						need, err = strconv.ParseInt(value, 10, 64)
						require.NoError(t, err)
					case "force":
						force = value
					default:
						t.Fatalf("%q: unknown word %q", line, word)
					}
				}
				n := machine.byPath(words[0])
				require.NotNil(t, n, words[0])
				refusals := machine.judge(n, need, force)
				var got []string
				for _, refusal := range refusals {
					got = append(got, string(refusal.Reason))
					require.NotEmpty(t, refusal.Message)
					require.NotEmpty(t, refusal.Hint)
					require.Equal(t, diag.Printable(refusal.Message+refusal.Hint), refusal.Message+refusal.Hint)
				}
				if len(got) == 0 {
					got = []string{"ok"}
				}
				require.Equal(t, want, strings.Join(got, " "), "%s: %v", question, refusals)
			}
		})
	}
}

// A device in use stays refused, whatever --force-device names.
func TestForceNeverLiftsUse(t *testing.T) {
	files, err := filepath.Glob("testdata/machines/*.txtar")
	require.NoError(t, err)
	lifted := 0
	for _, file := range files {
		machine, _ := loadMachine(t, file)
		for _, n := range machine.nodes {
			plain := machine.judge(n, 0, "")
			forced := machine.judge(n, 0, machine.forceName(n))
			for _, refusal := range plain {
				if refusal.Reason == NotStick || refusal.Reason == LoopDevice {
					lifted++
					continue
				}
				require.Contains(t, forced, refusal, "%s %s", file, n.path)
			}
		}
	}
	require.NotZero(t, lifted)
}

func TestRefusalsSayWhatAndHow(t *testing.T) {
	machine, _ := loadMachine(t, "testdata/machines/nixos-live-stick.txtar")
	require.Equal(t, []Refusal{{
		System,
		"it holds the running system (/iso, /nix/.ro-store, /nix/store)",
		"name another device; `k3splan boot-stick --list` shows them",
	}}, machine.judge(machine.byName("sdb"), 0, ""))

	machine, _ = loadMachine(t, "testdata/machines/sticks.txtar")
	require.Equal(t, []Refusal{{
		Mounted, "it is mounted at /srv/somewhere else", "if it is the right one: umount '/srv/somewhere else'",
	}}, machine.judge(machine.byName("sdc"), 0, ""))

	machine, _ = loadMachine(t, "testdata/machines/usb-hard-disk.txtar")
	refused := &Refused{"/dev/sda", machine.judge(machine.byName("sda"), 2e12, "")}
	require.EqualError(t, refused, "/dev/sda was refused: it is not a removable USB device (not removable, on the bus usb); it holds 1.00 TB and the image needs 2.00 TB")
	require.Equal(t, "if you are sure that it is the right one: --force-device 47168K6NS", diag.HintOf(refused.advised()))
	require.True(t, refused.Has(TooSmall))
	require.False(t, refused.Has(System))

	machine, _ = loadMachine(t, "testdata/machines/raid1-and-lvm-root.txtar")
	require.Equal(t, Refusal{NotDisk, "it is not a disk but a raid1", "it is built on /dev/sdb, /dev/sdc; name a disk that is not in use"},
		machine.judge(machine.byName("md0"), 0, "")[0])
}

func TestDisks(t *testing.T) {
	names := func(disks []Disk) (names []string) {
		for _, disk := range disks {
			names = append(names, disk.Path)
		}
		return names
	}
	machine, _ := loadMachine(t, "testdata/machines/virtual-machine.txtar")
	require.Equal(t, []string{"/dev/vda"}, names(machine.Disks()), "no loop devices, nothing in memory")
	machine, _ = loadMachine(t, "testdata/machines/luks-btrfs-and-empty-readers.txtar")
	require.Equal(t, []string{"/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/nvme0n1"}, names(machine.Disks()), "readers without a card are shown")
	machine, _ = loadMachine(t, "testdata/machines/raid1-lvm-nvme-as-list.txtar")
	require.NotContains(t, names(machine.Disks()), "/dev/md0")

	machine, _ = loadMachine(t, "testdata/machines/btrfs-over-two-disks.txtar")
	disks := machine.Disks()
	stick := disks[slices.IndexFunc(disks, func(d Disk) bool { return d.Path == "/dev/sdd" })]
	require.Equal(t, Disk{
		Path: "/dev/sdd", Number: "8:48", Size: 31914983424, Model: "SanDisk Cruzer Blade", Serial: "4C530", Bus: "usb",
		Removable: true, Table: "dos", ForceName: "4C530",
		Contents: []Content{{"/dev/sdd1", "btrfs", "volume2SSD", 31000000000, []string{"/volum2"}}},
		Refusals: []Refusal{{Mounted, "it is mounted at /volum2", "if it is the right one: umount /volum2"}},
	}, stick)
	require.True(t, stick.Stick())
}

func TestDescribe(t *testing.T) {
	machine, _ := loadMachine(t, "testdata/machines/sticks.txtar")
	require.Equal(t, `  device   /dev/sda
  model    SanDisk Ultra
  size     31.9 GB (31914983424 bytes)
  serial   SAME
  bus      usb, removable
  content  partition table dos
           /dev/sda1 exfat "\x1b[2Jerased" 31.0 GB
`, machine.disk(machine.byName("sda")).Describe())
	require.Equal(t, `  device   /dev/sdb
  model    SanDisk Ultra
  size     31.9 GB (31914983424 bytes)
  serial   SAME
  bus      usb, removable
  content  nothing that the system recognizes
`, machine.disk(machine.byName("sdb")).Describe())
	require.Contains(t, machine.disk(machine.byName("sdc")).Describe(), "/dev/sdc1 ext4 31.0 GB, in use at /srv/somewhere else\n")
	require.Contains(t, machine.disk(machine.byName("sdd")).Describe(), "/dev/sdd1 part 31.0 GB, in use at [SWAP]\n")
	require.Contains(t, machine.disk(machine.byName("nvme0n1")).Describe(), "bus      nvme, not removable\n")
}

func TestParseLsblk(t *testing.T) {
	t.Run("escapes", func(t *testing.T) {
		machine, _ := loadMachine(t, "testdata/machines/strings-bad-escapes.txtar")
		require.Equal(t, "Mass Sto", machine.byName("sdb").vendor)
		require.Equal(t, "café \"x\"\x1b[2J", machine.byName("sdb1").label)
		require.Equal(t, `café "x"\x1b[2J`, machine.disk(machine.byName("sdb")).Contents[0].Label)
	})
	t.Run("one node with several parents", func(t *testing.T) {
		machine, _ := loadMachine(t, "testdata/machines/raid1-and-lvm-root.txtar")
		require.Len(t, machine.byName("md0").below, 2)
	})
	for name, text := range map[string]string{
		"empty":              ``,
		"cut off":            `{"blockdevices": [{"name": "sda", "si`,
		"without a name":     `{"blockdevices": [{"size": 1}]}`,
		"size for people":    `{"blockdevices": [{"name": "sda", "size": "14.3G"}]}`,
		"removable: perhaps": `{"blockdevices": [{"name": "sda", "rm": "perhaps"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseLsblk([]byte(text))
			require.ErrorContains(t, err, "read the output of lsblk")
		})
	}
	t.Run("shapes", func(t *testing.T) {
		for _, text := range []string{
			`{"blockdevices": [{"name":"sda","maj:min":" 8:0 ","rm":"1","ro":"0","size":"5","type":"disk","mountpoint":"/a"}]}`,
			`{"blockdevices": [{"name":"sda","kname":"sda","path":"/dev/sda","maj:min":"8:0","rm":true,"ro":false,"size":5,"type":"disk","mountpoint":"/a","mountpoints":[null,"/a"]}]}`,
			`{"blockdevices": [{"name":"/dev/sda","kname":"/dev/sda","maj:min":"8:0","rm":1,"ro":0,"size":5,"type":"disk","mountpoints":["/a"]}]}`,
		} {
			nodes, err := parseLsblk([]byte(text))
			require.NoError(t, err)
			require.Equal(t, []*node{{name: "sda", path: "/dev/sda", number: "8:0", kind: "disk", size: 5, removable: true, mounts: []string{"/a"}}}, nodes)
		}
	})
}

func TestParseMountinfo(t *testing.T) {
	mounts, err := parseMountinfo("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/my\\134root rw,errors=continue\n" +
		"41 25 0:99 / /odd rw - tmpfs  rw\n" +
		"42 25 0:98 / /- rw - overlay overlay rw,lowerdir=/a\\054b:/c::/d,upperdir=/u,workdir=/w\n")
	require.NoError(t, err)
	require.Equal(t, []mount{
		{"98:0", "/mnt 2", "ext3", `/dev/my\root`, []string{"rw", "errors=continue"}, false},
		{"0:99", "/odd", "tmpfs", "", []string{"rw"}, false},
		{"0:98", "/-", "overlay", "overlay", []string{"rw", `lowerdir=/a\054b:/c::/d`, "upperdir=/u", "workdir=/w"}, false},
	}, mounts)
	require.Equal(t, []string{"/a,b", "/c", "/d", "/u"}, mounts[2].layers())
	for _, text := range []string{"36 35 98:0 / /mnt rw\n", "36 35 98:0 / /mnt rw - \n", "garbage"} {
		_, err := parseMountinfo(text)
		require.Error(t, err, text)
	}
}

func TestFormatSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 99940: "99.9 kB", 99960: "100 kB", 999499: "999 kB", 999500: "1.00 MB",
		31914983424: "31.9 GB", 1000204886016: "1.00 TB",
	} {
		require.Equal(t, want, FormatSize(bytes), fmt.Sprint(bytes))
	}
}
