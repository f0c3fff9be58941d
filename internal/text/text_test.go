package text

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCount(t *testing.T) {
	require.Equal(t, "0 hosts", Count(0, "host"))
	require.Equal(t, "1 host", Count(1, "host"))
	require.Equal(t, "2 hosts", Count(2, "host"))
}

func TestWithArticle(t *testing.T) {
	for noun, want := range map[string]string{"agent": "an agent", "server": "a server", "": "something else"} {
		require.Equal(t, want, WithArticle(noun))
	}
}

func TestEnumerate(t *testing.T) {
	require.Empty(t, Enumerate(nil))
	require.Equal(t, "olaf", Enumerate([]string{"olaf"}))
	require.Equal(t, "olaf and ulf", Enumerate([]string{"olaf", "ulf"}))
	require.Equal(t, "olaf, rolf and ulf", Enumerate([]string{"olaf", "rolf", "ulf"}))
	require.Equal(t, "olaf, rolf and ulf", Some([]string{"olaf", "rolf", "ulf"}, 3))
	require.Equal(t, "olaf, rolf and 1 more", Some([]string{"olaf", "rolf", "ulf"}, 2))
}

func TestLists(t *testing.T) {
	require.NotNil(t, OrEmpty[[]string](nil))
	require.Equal(t, []string{"b"}, OrEmpty([]string{"b"}))
	before := []string{"a", "b", "a", "c"}
	require.Equal(t, []string{"b", "c"}, Without(before, []string{"a"}))
	require.Equal(t, []string{"a", "b", "a", "c"}, before)
}

func TestWrap(t *testing.T) {
	require.Equal(t, []string{"one two", "three-and-four", "five"}, Wrap(" one  two three-and-four five", 8))
	require.Equal(t, []string{"日本 日", "本"}, Wrap("日本 日 本", 7))
	require.Empty(t, Wrap("  ", 8))
}
