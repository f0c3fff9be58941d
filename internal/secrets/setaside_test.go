package secrets

import (
	"io/fs"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

func TestSetAside(t *testing.T) {
	forEachStore(t, func(t *testing.T, dir string, where plan.SecretStore) {
		vault := openVault(t, dir, where)
		contents := map[string]string{"karlpasswd": "hash", "ulf_passwd": "other", "hosts/karl_ed25519": "key", "passwd": "all"}
		for name, content := range contents {
			require.NoError(t, vault.Create(name, []byte(content+"\n")))
		}
		names, err := vault.OfHost("karl", []string{"karl", "ulf"})
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"hosts/karl_ed25519", "karlpasswd"}, names)
		now := time.Date(2026, 12, 1, 3, 4, 5, 0, time.UTC)
		for _, name := range names {
			kept, err := vault.SetAside(name, now)
			require.NoError(t, err)
			content, err := vault.Read(kept)
			require.NoError(t, err)
			require.Equal(t, contents[name]+"\n", string(content))
			_, err = vault.Read(name)
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = vault.SetAside(name, now)
			require.Error(t, err)
		}
		all, err := vault.List()
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"passwd", "ulf_passwd", "retired/karlpasswd-20261201T030405.000Z", "retired/karl_ed25519-20261201T030405.000Z"}, all)
	})
}
