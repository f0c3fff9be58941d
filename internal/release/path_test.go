package release

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPath(t *testing.T) {
	for _, c := range []struct {
		from, to Pair
		want     string
	}{
		{Pair{"24.11", "1.31"}, Pair{"26.05", "1.35"},
			"25.11/1.32 reboot, 25.11/1.33, 25.11/1.34, 26.05/1.34 reboot, 26.05/1.35"},
		{Pair{"24.11", "1.30"}, Pair{"26.05", "1.35"},
			"24.11/1.31, 25.11/1.32 reboot, 25.11/1.33, 25.11/1.34, 26.05/1.34 reboot, 26.05/1.35"},
		{Pair{"25.05", "1.32"}, Pair{"26.05", "1.35"},
			"25.11/1.32 reboot, 25.11/1.33, 25.11/1.34, 26.05/1.34 reboot, 26.05/1.35"},
		{Pair{"25.11", "1.34"}, Pair{"26.05", "1.35"}, "26.05/1.34 reboot, 26.05/1.35"},
		{Pair{"26.05", "1.35"}, Pair{"26.11", "1.36"}, "26.11/1.35 reboot, 26.11/1.36"},
		{Pair{"26.05", "1.34"}, Pair{"26.11", "1.35"}, "26.05/1.35, 26.11/1.35 reboot"},
		{Pair{"24.11", ""}, Pair{"26.05", ""}, "26.05/ reboot"},
		{Pair{"26.05", "1.35"}, Pair{"26.05", "1.35"}, ""},
	} {
		path, err := Path(c.from, c.to)
		require.NoError(t, err, c.from)
		var words []string
		for _, step := range path {
			word := step.NixOS + "/" + step.K3s
			if step.Reboot {
				word += " reboot"
			}
			words = append(words, word)
		}
		assert.Equal(t, c.want, strings.Join(words, ", "), "%s to %s", c.from, c.to)
	}
}

func TestNoPath(t *testing.T) {
	for _, c := range []struct {
		from, to Pair
		want     string
	}{
		{Pair{"26.05", "1.35"}, Pair{"26.05", "1.34"}, "NixOS 26.05 with k3s 1.34 is older than NixOS 26.05 with k3s 1.35, and an upgrade does not go back"},
		{Pair{"26.05", "1.34"}, Pair{"25.11", "1.34"}, "is older than"},
		{Pair{"26.05", ""}, Pair{"25.11", ""}, "NixOS 25.11 is older than NixOS 26.05"},
		{Pair{"23.11", "1.28"}, Pair{"25.11", "1.34"}, "NixOS 23.11 is unknown to this version of k3splan"},
		{Pair{"24.11", "1.31"}, Pair{"26.05", "1.36"}, "NixOS 26.05 has no k3s 1.36, but 1.34, 1.35"},
		{Pair{"24.11", ""}, Pair{"26.05", "1.35"}, "an upgrade does not add or remove k3s"},
	} {
		_, err := Path(c.from, c.to)
		assert.ErrorContains(t, err, c.want)
	}
}

// No path skips a minor version, goes back, or crosses from etcd 3.5 to 3.6 without its patch release,
// whatever the table says.
func TestEveryPathGoesByOneMinorVersion(t *testing.T) {
	table := releases
	t.Cleanup(func() { releases = table })
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	for draw := range 600 {
		if draw > 0 {
			releases = randomReleases(random)
		}
		for _, from := range pairs() {
			for _, to := range pairs() {
				path, err := Path(from, to)
				if err != nil {
					continue
				}
				found++
				here := Step{Pair: from}
				if len(path) > 0 {
					here.Patch = Patch(from, path[0].Pair)
				}
				for _, step := range path {
					r, ok := Find(step.NixOS)
					require.True(t, ok)
					require.True(t, step.K3s == "" || r.Has(step.K3s), "%s has no k3s %s", step.NixOS, step.K3s)
					require.Contains(t, []string{here.K3s, Following(here.K3s)}, step.K3s, "%v", path)
					require.False(t, Before(step.NixOS, here.NixOS), "%v goes back", path)
					require.NotEqual(t, here.Pair, step.Pair)
					require.Equal(t, here.NixOS != step.NixOS, step.Reboot)
					switch { // what is demanded, and where it is not
					case here.K3s == "1.33" && step.K3s == "1.34":
						require.Equal(t, "1.33.7+k3s3", here.Patch)
					case here.K3s == "1.32" && step.K3s == "1.33":
						require.Equal(t, "1.32.11+k3s3", here.Patch)
					default:
						require.Empty(t, here.Patch)
					}
					here = step
				}
				require.Equal(t, to, here.Pair)
			}
		}
	}
	require.Greater(t, found, 10000)
}

func pairs() (found []Pair) {
	for _, r := range releases {
		found = append(found, Pair{NixOS: r.Name})
		for _, minor := range r.K3s {
			found = append(found, Pair{r.Name, minor})
		}
	}
	return found
}

func randomReleases(random *rand.Rand) (made []NixOS) {
	first := 28
	for i := range 2 + random.IntN(4) {
		r := NixOS{Name: fmt.Sprintf("%d.%s", 24+i/2, []string{"05", "11"}[i%2]), Released: day(2024, time.Month(random.IntN(40)), 1)}
		first += random.IntN(3)
		for minor := first; minor < min(first+1+random.IntN(4), 37); minor++ {
			name := fmt.Sprintf("1.%d", minor)
			r.K3s = append(r.K3s, name)
		}
		made = append(made, r)
	}
	return made
}
