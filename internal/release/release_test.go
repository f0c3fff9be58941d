package release

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	for i, r := range All() {
		require.NotEmpty(t, r.K3s, r.Name)
		assert.Equal(t, r.Name, NameIn(r.Branch()))
		assert.True(t, r.Released.IsZero() || r.Released.Before(r.Ends), r.Name)
		assert.NotEmpty(t, r.Nix)
		if i > 0 {
			before := All()[i-1]
			assert.True(t, Before(before.Name, r.Name))
			assert.True(t, before.Ends.Before(r.Ends))
		}
		for j, minor := range r.K3s {
			_, ok := FindK3s(minor)
			require.True(t, ok, minor)
			if j > 0 {
				assert.Equal(t, Following(r.K3s[j-1]), minor)
			}
		}
	}
	for i, k := range Minors()[1:] {
		assert.Equal(t, Following(minors[i].Minor), k.Minor)
		assert.True(t, minors[i].Ends.Before(k.Ends))
	}
	r, ok := Find(ForNewProjects)
	require.True(t, ok)
	assert.False(t, r.Released.IsZero(), "new projects start with what is released")
	assert.False(t, r.Insecure(r.NewK3s()))
	_, ok = Find(FirstState)
	require.True(t, ok)
}

func TestNameIn(t *testing.T) {
	for ref, want := range map[string]string{
		"nixos-25.11": "25.11", "nixos-25.11-small": "25.11", "release-24.11": "24.11", "25.05": "25.05", "nixpkgs-26.05-darwin": "26.05",
		"nixos-unstable": "", "master": "", "v25.11": "", "staging-next-26.11": "26.11", "25.05.802216.55d1f923c480": "25.05",
	} {
		assert.Equal(t, want, NameIn(ref), ref)
	}
}

func TestInsecure(t *testing.T) {
	var found []string
	for _, r := range All() {
		for _, minor := range r.K3s {
			if r.Insecure(minor) {
				found = append(found, r.Name+"/"+minor)
			}
		}
	}
	assert.Equal(t, []string{"24.11/1.28", "25.11/1.31"}, found)
}

// The last day of support is a day of support.
func TestEnded(t *testing.T) {
	r, _ := Find("25.11")
	last := time.Date(2026, time.June, 30, 23, 59, 59, 0, time.UTC)
	assert.False(t, r.Ended(last))
	assert.True(t, r.Ended(last.Add(2*time.Second)))
	k, _ := FindK3s("1.34")
	assert.False(t, k.Ended(time.Date(2026, time.October, 27, 12, 0, 0, 0, time.UTC)))
	assert.True(t, k.Ended(time.Date(2026, time.October, 28, 0, 0, 1, 0, time.UTC)))

	r, _ = Find("26.05")
	assert.Equal(t, []string{"1.34", "1.35"}, r.Secure(day(2026, time.June, 1)))
	assert.Equal(t, []string{"1.35"}, r.Secure(day(2026, time.December, 1)))
	assert.Equal(t, []string{"1.35"}, r.Secure(day(2030, time.January, 1)))
}

func TestToday(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1796083200")
	assert.Equal(t, "2026-12-01", Date(Today()))
	t.Setenv("SOURCE_DATE_EPOCH", "")
	assert.WithinDuration(t, time.Now(), Today(), time.Minute)
}
