package etcd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever is in the description of a snapshot, the file can be opened, and its content is trusted only if it
// is the one that is described.
func FuzzOpen(f *testing.F) {
	content := database(3)
	good, err := marshal(&Description{Version: 1, Cluster: "rack", Size: int64(len(content)), SHA256: hexSum(content)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, content)
	f.Add([]byte(`{"version": 2}`), content)
	f.Add([]byte("{}"), []byte("age-encryption.org/v1\n"))
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, description, content []byte) {
		file := filepath.Join(t.TempDir(), "x.db")
		require.NoError(t, os.WriteFile(file, content, 0o600))
		require.NoError(t, os.WriteFile(file+".json", description, 0o600))
		s, err := Open(file)
		require.NoError(t, err)
		require.NotEqual(t, s.Description == nil, s.BadDescription == "")
		s.TokenState("x")
		check := newCheck()
		for chunk := range bytes.Lines(content) {
			_, _ = check.Write(chunk)
		}
		require.Equal(t, hexSum(content), check.sum(), "however it comes")
		if check.verify() == nil {
			require.Equal(t, hexSum(content[:len(content)-32]), hexOf(content[len(content)-32:]))
		}
	})
}

// A host that answers anything does not end k3splan.
func FuzzParseView(f *testing.F) {
	f.Add("container yes\nheld yes\nrecord a b stopped\nfounds yes\njoins https://10.0.0.2:6443\nunit loaded\n")
	f.Add("record \n")
	f.Fuzz(func(t *testing.T, text string) {
		v := parseView(text)
		require.True(t, v.record.stage.atLeast(none))
	})
}
