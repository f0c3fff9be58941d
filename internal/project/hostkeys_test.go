package project_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// rackWithKeys is the five-host example after setup.
func rackWithKeys(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rack")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/rack")))
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	return dir
}

func keysOf(t *testing.T, dir string) remote.HostKeys {
	t.Helper()
	p, _ := plan.Load(os.DirFS(dir))
	keys, problems := remote.ReadKnownHosts(os.DirFS(dir), p.HostNames(), false)
	require.Empty(t, problems)
	return keys
}

func codesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	_, problems, err := project.Load(dir)
	require.NoError(t, err)
	codes := map[string]string{}
	for _, p := range problems {
		codes[p.File] = p.Code
	}
	return codes
}

func TestSetupMakesHostKeysOnce(t *testing.T) {
	dir := rackWithKeys(t)
	keys := keysOf(t, dir)
	before, err := os.ReadFile(filepath.Join(dir, "secrets/hosts/olaf_ed25519"))
	require.NoError(t, err)
	public, err := secrets.ParseHostKey(before)
	require.NoError(t, err)
	require.Equal(t, []remote.HostKey{{Public: public, Made: true}}, keys.Of("olaf"))
	for _, host := range []string{"ulf", "rolf", "karl", "ulrich"} {
		require.Len(t, keys.Of(host), 1, host)
	}
	info, err := os.Stat(filepath.Join(dir, "secrets/hosts"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	made, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Empty(t, made)
	after, err := os.ReadFile(filepath.Join(dir, "secrets/hosts/olaf_ed25519"))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// Nobody has the machines of the starter tables.
func TestSetupMakesNoKeysForTheStarter(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		_, err := project.Setup(dir, k3splan.Files)
		require.NoError(t, err)
	}
	require.NoDirExists(t, filepath.Join(dir, "secrets/hosts"))
	require.NoFileExists(t, filepath.Join(dir, remote.KnownHostsFile))
}

// A clone has the public keys and lacks the private ones: setup must not make others.
func TestSetupInACloneMakesNoSecondKey(t *testing.T) {
	dir := rackWithKeys(t)
	before := keysOf(t, dir)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "secrets/hosts")))
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Equal(t, before.Of("olaf"), keysOf(t, dir).Of("olaf"))
	require.NoDirExists(t, filepath.Join(dir, "secrets/hosts"))
	require.Equal(t, "secret-missing", codesOf(t, dir)["secrets/hosts/olaf_ed25519"])
}

func TestMakeHostKeys(t *testing.T) {
	dir := rackWithKeys(t)
	first := keysOf(t, dir)
	made, err := project.MakeHostKeys(dir, vaultOf(t, dir), []string{"olaf", "ulf"}, false)
	require.NoError(t, err)
	require.Empty(t, made)

	// renewed: known by both, the old private part is kept
	made, err = project.MakeHostKeys(dir, vaultOf(t, dir), []string{"olaf"}, true)
	require.NoError(t, err)
	require.Equal(t, []string{"olaf"}, made)
	renewed := keysOf(t, dir)
	require.Len(t, renewed.Of("olaf"), 2)
	require.Equal(t, first.Of("olaf")[0], renewed.Of("olaf")[0])
	retired, err := filepath.Glob(filepath.Join(dir, "secrets/retired/olaf_ed25519-*"))
	require.NoError(t, err)
	require.Len(t, retired, 1)
	require.NotContains(t, codesOf(t, dir), "secrets/hosts/olaf_ed25519")

	// interrupted before the public part was written
	require.NoError(t, remote.ChangeKnownHosts(dir, func(remote.HostKeys) (map[string][]remote.HostKey, error) {
		return map[string][]remote.HostKey{"olaf": first.Of("olaf")}, nil
	}))
	require.Equal(t, "host-key-unlisted", codesOf(t, dir)["secrets/hosts/olaf_ed25519"])
	made, err = project.MakeHostKeys(dir, vaultOf(t, dir), []string{"olaf"}, false)
	require.NoError(t, err)
	require.Equal(t, []string{"olaf"}, made)
	require.Equal(t, renewed.Of("olaf"), keysOf(t, dir).Of("olaf"))

	// a damaged private part is not replaced silently
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets/hosts/ulf_ed25519"), []byte("x\n"), 0o600))
	_, err = project.MakeHostKeys(dir, vaultOf(t, dir), []string{"ulf"}, false)
	require.ErrorContains(t, err, "secrets/hosts/ulf_ed25519 is not a private ssh key")
}

func TestAdoptHostKey(t *testing.T) {
	dir := rackWithKeys(t)
	_, public, err := secrets.NewHostKey("x")
	require.NoError(t, err)
	kept, err := project.AdoptHostKey(dir, vaultOf(t, dir), "ulf", remote.HostKey{Public: public})
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "secrets", kept))
	require.NoFileExists(t, filepath.Join(dir, "secrets/hosts/ulf_ed25519"))
	require.Equal(t, []remote.HostKey{{Public: public}}, keysOf(t, dir).Of("ulf"))
	require.NotContains(t, codesOf(t, dir), "secrets/hosts/ulf_ed25519")

	// adopted, then asked for one of ours: only on purpose
	made, err := project.MakeHostKeys(dir, vaultOf(t, dir), []string{"ulf"}, false)
	require.NoError(t, err)
	require.Empty(t, made)
	made, err = project.MakeHostKeys(dir, vaultOf(t, dir), []string{"ulf"}, true)
	require.NoError(t, err)
	require.Equal(t, []string{"ulf"}, made)
	keys := keysOf(t, dir).Of("ulf")
	require.Len(t, keys, 2)
	require.False(t, keys[0].Made)

	// the machine has ours by now: nothing is taken back, the old key is not good any more
	kept, err = project.AdoptHostKey(dir, vaultOf(t, dir), "ulf", remote.HostKey{Public: keys[1].Public})
	require.NoError(t, err)
	require.Empty(t, kept)
	require.FileExists(t, filepath.Join(dir, "secrets/hosts/ulf_ed25519"))
	require.Equal(t, keys[1:], keysOf(t, dir).Of("ulf"))
}

func vaultOf(t *testing.T, dir string) *secrets.Vault {
	t.Helper()
	vault, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	return vault
}

// What was made before something failed is reported, and the next call completes it.
func TestMakeHostKeysReportsWhatItMade(t *testing.T) {
	dir := rackWithKeys(t)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "secrets/hosts")))
	require.NoError(t, os.Remove(filepath.Join(dir, remote.KnownHostsFile)))
	inTheWay := filepath.Join(dir, "secrets/hosts/ulf_ed25519")
	require.NoError(t, os.MkdirAll(inTheWay, 0o700))
	made, err := project.MakeHostKeys(dir, vaultOf(t, dir), []string{"olaf", "ulf"}, false)
	require.Error(t, err)
	require.Equal(t, []string{"olaf"}, made)
	require.FileExists(t, filepath.Join(dir, "secrets/hosts/olaf_ed25519"))
	require.Empty(t, keysOf(t, dir).Of("olaf"))
	require.NoError(t, os.Remove(inTheWay))
	made, err = project.MakeHostKeys(dir, vaultOf(t, dir), []string{"olaf", "ulf"}, false)
	require.NoError(t, err)
	require.Equal(t, []string{"olaf", "ulf"}, made)
	require.Len(t, keysOf(t, dir).Of("olaf"), 1)
}

// Each of several k3splans at once wrote what it had read before the others had written.
func TestMakeHostKeysAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rack")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/rack")))
	hosts := []string{"olaf", "ulf", "rolf", "karl", "ulrich"}
	var group sync.WaitGroup
	for i := range 4 * len(hosts) {
		vault := vaultOf(t, dir)
		group.Go(func() {
			_, err := project.MakeHostKeys(dir, vault, []string{hosts[i%len(hosts)], hosts[(i+1)%len(hosts)]}, false)
			assert.NoError(t, err)
		})
	}
	group.Wait()
	keys := keysOf(t, dir)
	for _, host := range hosts {
		require.Len(t, keys.Of(host), 1)
	}
	for file, code := range codesOf(t, dir) {
		require.NotContains(t, code, "host-key", file)
	}
}

// Two setups at once made tables that do not fit together, or failed at what the other one had made.
func TestSetupAtOnce(t *testing.T) {
	for range 10 {
		dir := filepath.Join(t.TempDir(), "rack")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*.swp"), 0o644))
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				_, err := project.Setup(dir, k3splan.Files)
				assert.NoError(t, err)
			})
		}
		group.Wait()
		for _, file := range []string{plan.HostsFile, plan.K3sFile, plan.NetworkFile} {
			want, err := fs.ReadFile(k3splan.Files, file)
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
		ignored, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
		require.NoError(t, err)
		require.Equal(t, "*.swp\n# k3splan: secrets, and what it renders\n/secrets/\n/generated/\n/.generated-*/\n/.k3splan/\n", string(ignored))
	}
}
