package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

func newKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return key
}

// umask is this process's.
func umask() os.FileMode {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return os.FileMode(mask)
}

func newRSAKey(t testing.TB, bits int) ssh.PublicKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(&private.PublicKey)
	require.NoError(t, err)
	return key
}

// setKnownHosts replaces the keys of hosts, whatever they were.
func setKnownHosts(dir string, keys map[string][]HostKey) error {
	return ChangeKnownHosts(dir, func(HostKeys) (map[string][]HostKey, error) { return keys, nil })
}

var hosts = []string{"karl", "olaf", "ulf"}

func TestReadWhatSetWrote(t *testing.T) {
	dir := t.TempDir()
	first, second, adopted := newKey(t), newKey(t), newRSAKey(t, 2048)
	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{"olaf": {{first, true}, {second, true}}, "karl": {{adopted, false}}}))
	keys, problems := ReadKnownHosts(os.DirFS(dir), hosts, false)
	require.Empty(t, problems)
	require.Equal(t, []HostKey{{first, true}, {second, true}}, keys.Of("olaf"))
	require.Equal(t, []HostKey{{adopted, false}}, keys.Of("karl"))
	require.True(t, keys.Known("olaf"))
	require.False(t, keys.Known("ulf"))

	info, err := os.Stat(filepath.Join(dir, KnownHostsFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644)&^umask(), info.Mode().Perm(), "it is public")
}

func TestSetKeepsEverythingElse(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, filepath.FromSlash(KnownHostsFile))
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	own := "# mine\n\nkarl " + KeyLine(newKey(t)) + " by hand\r\nOLAF " + KeyLine(newKey(t)) + "\nwrong\n  # indented"
	require.NoError(t, os.WriteFile(name, []byte(own), 0o644))
	key := newKey(t)
	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{"olaf": {{key, false}}}))
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	lines := strings.Split(own, "\n")
	want := strings.Join([]string{lines[0], lines[1], lines[2], "wrong", "  # indented", "olaf " + KeyLine(key) + " adopted", ""}, "\n")
	require.Equal(t, want, string(content))

	before, err := os.Stat(name)
	require.NoError(t, err)
	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{"olaf": {{key, false}}}))
	after, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime(), "nothing to change, nothing written")

	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{"olaf": nil}))
	keys, _ := ReadKnownHosts(os.DirFS(dir), hosts, false)
	require.False(t, keys.Known("olaf"))
	require.True(t, keys.Known("karl"))
}

// A link stays; the file that it leads to changes.
func TestSetThroughALink(t *testing.T) {
	key := newKey(t)
	dir, other := t.TempDir(), t.TempDir()
	require.NoError(t, setKnownHosts(other, map[string][]HostKey{"olaf": {{key, false}}}))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "plans"), 0o700))
	require.NoError(t, os.Symlink(filepath.Join(other, KnownHostsFile), filepath.Join(dir, KnownHostsFile)))
	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{"ulf": {{newKey(t), false}}}))
	keys, problems := ReadKnownHosts(os.DirFS(other), []string{"olaf", "ulf"}, false)
	require.Empty(t, problems)
	require.True(t, keys.Known("olaf") && keys.Known("ulf"))
}

func TestRead(t *testing.T) {
	good := KeyLine(newKey(t))
	for name, test := range map[string]struct {
		line, code, hint string
		partial          bool
	}{
		"marker":        {line: "@cert-authority olaf " + good, code: codeInvalid},
		"revoked":       {line: "@revoked olaf " + good, code: codeInvalid},
		"hashed":        {line: "|1|abc|def " + good, code: codeInvalid},
		"pattern":       {line: "* " + good, code: codeInvalid},
		"several names": {line: "olaf,10.0.0.2 " + good, code: codeInvalid},
		"port":          {line: "[olaf]:2222 " + good, code: codeInvalid},
		"no key":        {line: "olaf", code: codeInvalid},
		"half a key":    {line: "olaf " + good[:40], code: codeInvalid},
		"options":       {line: `olaf command="x" ` + good, code: codeInvalid},
		"a login key":   {line: "olaf " + good[:12], code: codeInvalid},
		"weak RSA":      {line: "olaf " + KeyLine(newRSAKey(t, 1024)), code: codeInvalid, hint: "run `k3splan known-hosts scan olaf`"},
		"other host":    {line: "ola " + good, code: codeOrphan, hint: `did you mean "olaf"?`},
		"far host":      {line: "somebody " + good, code: codeOrphan, hint: "remove the line"},
		"perhaps":       {line: "somebody " + good, partial: true},
		"good":          {line: "olaf " + good + " made by k3splan"},
		"upper case":    {line: "  OLAF " + good + "  "},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{KnownHostsFile: {Data: []byte("# comment\n\n" + test.line + "\r\n")}}
			keys, problems := ReadKnownHosts(fsys, hosts, test.partial)
			if test.code == "" {
				require.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1)
			require.Equal(t, test.code, problems[0].Code)
			require.Equal(t, 3, problems[0].Line)
			require.Equal(t, KnownHostsFile, problems[0].File)
			if test.hint != "" {
				require.Equal(t, test.hint, problems[0].Hint)
			}
			require.False(t, keys.Known("olaf"), "what is wrong verifies nothing")
		})
	}
}

// Machines made of one image have the same key, and neither can be told from the other.
func TestOneKeyOfTwoHosts(t *testing.T) {
	shared, own := KeyLine(newKey(t)), KeyLine(newKey(t))
	for name, test := range map[string]struct {
		file  string
		lines []int // with an error
	}{
		"two hosts":               {"olaf " + shared + "\nulf " + shared + "\n", []int{2}},
		"other comments":          {"olaf " + shared + " adopted\n\nulf " + shared + " made by k3splan\n", []int{3}},
		"one of several keys":     {"olaf " + own + "\nolaf " + shared + "\nulf " + shared + "\n", []int{3}},
		"three hosts":             {"olaf " + shared + "\nulf " + shared + "\nkarl " + shared + "\n", []int{2, 3}},
		"the same host twice":     {"olaf " + shared + "\nOLAF " + shared + "\n", nil},
		"a name of the past":      {"olaf " + shared + "\nold " + shared + "\n", nil},
		"before it, the old name": {"old " + shared + "\nolaf " + shared + "\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			keys, problems := ReadKnownHosts(fstest.MapFS{KnownHostsFile: {Data: []byte(test.file)}}, hosts, false)
			var lines []int
			for _, p := range problems {
				if p.Severity == diag.Error {
					require.Equal(t, "host-key-shared", p.Code)
					require.Contains(t, p.Message, "the same ssh key as olaf")
					require.Contains(t, p.Hint, "known-hosts scan")
					lines = append(lines, p.Line)
				}
			}
			require.Equal(t, test.lines, lines)
			require.Equal(t, test.lines != nil, keys.SharedWith("olaf", keys.Of("olaf")[len(keys.Of("olaf"))-1]) != "")
		})
	}
}

func TestReadUnreadable(t *testing.T) {
	keys, problems := ReadKnownHosts(fstest.MapFS{}, hosts, false)
	require.Empty(t, problems)
	require.False(t, keys.Known("olaf"))
	_, problems = ReadKnownHosts(fstest.MapFS{KnownHostsFile + "/x": {}}, hosts, false)
	require.Len(t, problems, 1)
	require.Equal(t, codeInvalid, problems[0].Code)
}

func FuzzRead(f *testing.F) {
	f.Add("olaf ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t made by k3splan\n")
	f.Add("@revoked * ssh-rsa\n|1|x|y\n# \r\n\x00")
	f.Fuzz(func(t *testing.T, content string) {
		keys, _ := ReadKnownHosts(fstest.MapFS{KnownHostsFile: {Data: []byte(content)}}, hosts, false)
		for _, host := range hosts {
			for _, key := range keys.Of(host) {
				require.Empty(t, unfit(key.Public))
			}
		}
	})
}

// Two k3splans at once: each read the file before the other had written it, and one key was lost.
func TestSetLosesNoLine(t *testing.T) {
	dir := t.TempDir()
	const hosts = 40
	var group sync.WaitGroup
	for i := range hosts {
		key := HostKey{Public: newKey(t)}
		group.Go(func() { assert.NoError(t, setKnownHosts(dir, map[string][]HostKey{fmt.Sprintf("host%d", i): {key}})) })
	}
	group.Wait()
	keys, problems := ReadKnownHosts(os.DirFS(dir), nil, true)
	require.Empty(t, problems)
	for i := range hosts {
		require.True(t, keys.Known(fmt.Sprintf("host%d", i)), i)
	}
}

func TestChangeSeesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	no := errors.New("no")
	require.ErrorIs(t, ChangeKnownHosts(dir, func(HostKeys) (map[string][]HostKey, error) { return nil, no }), no)
	require.NoFileExists(t, filepath.Join(dir, KnownHostsFile))
	require.NoError(t, ChangeKnownHosts(dir, func(HostKeys) (map[string][]HostKey, error) { return nil, nil }))
	require.NoFileExists(t, filepath.Join(dir, KnownHostsFile))
	const hosts = 10
	var group sync.WaitGroup
	for range hosts {
		fresh := HostKey{Public: newKey(t), Made: true}
		group.Go(func() {
			assert.NoError(t, ChangeKnownHosts(dir, func(known HostKeys) (map[string][]HostKey, error) {
				return map[string][]HostKey{"olaf": append(slices.Clone(known.Of("olaf")), fresh)}, nil
			}))
		})
	}
	group.Wait()
	keys, problems := ReadKnownHosts(os.DirFS(dir), []string{"olaf"}, false)
	require.Empty(t, problems)
	require.Len(t, keys.Of("olaf"), hosts)
	// a last line without end is left as it is by who changes nothing
	name := filepath.Join(dir, KnownHostsFile)
	require.NoError(t, os.WriteFile(name, []byte("# end"), 0o600))
	require.NoError(t, ChangeKnownHosts(dir, func(HostKeys) (map[string][]HostKey, error) { return nil, nil }))
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "# end", string(content))
}
