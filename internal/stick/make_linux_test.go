package stick

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/diag"
	"k3splan/internal/project"
)

// noProject fails the test if anything of the project is used.
type noProject struct{ t *testing.T }

func (n noProject) Load() (*project.Project, error) {
	n.t.Error("the project was loaded")
	return nil, errors.New("unexpected")
}

func (n noProject) Render(*project.Project) (string, error) {
	n.t.Error("the project was rendered")
	return "", errors.New("unexpected")
}

func (n noProject) Report(diag.Problems) { n.t.Error("problems were reported") }

func (n noProject) SecretReader(*project.Project) func(string) ([]byte, error) {
	n.t.Error("secrets were read")
	return nil
}

func makeStick(t *testing.T, request Request, answers ...asktest.Answer) (*asktest.User, error) {
	t.Helper()
	user := asktest.New(t, answers...)
	return user, Make(t.Context(), request, noProject{t}, user, Streams{In: strings.NewReader(""), Err: os.Stderr})
}

func TestMakeRefusesContradictions(t *testing.T) {
	existing := filepath.Join(t.TempDir(), "x.iso")
	require.NoError(t, os.WriteFile(existing, nil, 0o600))
	for name, test := range map[string]struct {
		request Request
		err     string
	}{
		"no device":              {Request{}, "no device is named"},
		"an image, no device":    {Request{Image: "x"}, "no device is named"},
		"an image and an output": {Request{Device: "/dev/x", Image: "x", Output: "y"}, "--output keeps an image that is built"},
		"an image, netinstall":   {Request{Device: "/dev/x", Image: "x", Netinstall: true}, "are for an image that is built"},
		"an image, legacy":       {Request{Device: "/dev/x", Image: "x", Legacy: true}, "are for an image that is built"},
		"wipe without a device":  {Request{Output: "y", Wipe: true}, "--wipe is recorded on the stick"},
		"an output that exists":  {Request{Output: existing}, "already exists"},
		"an output in no folder": {Request{Output: filepath.Join(existing, "y")}, "is not a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			test.request.Host = "olaf"
			_, err := makeStick(t, test.request)
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorContains(t, err, test.err)
			require.NotEmpty(t, diag.HintOf(err))
		})
	}
}

// An image that k3splan did not make is written as it is, and the project has no part in it. The user of a
// test needs no terminal.
func TestMakeWritesAnyImage(t *testing.T) {
	device, file := loopDevice(t, 16*mib)
	data := partitioned(pattern(9*mib), mib)
	image := filepath.Join(t.TempDir(), "any.iso")
	require.NoError(t, os.WriteFile(image, data, 0o600))
	request := Request{Host: "olaf", Device: device, Image: image, Force: device, NoSecrets: true}

	_, err := makeStick(t, request, asktest.Answer{Question: "erase " + device, Text: "ulf"})
	require.ErrorIs(t, err, ask.ErrDeclined)
	require.ErrorIs(t, err, ErrRefused)
	_, err = makeStick(t, request, asktest.Answer{Question: "erase", Err: ask.ErrInterrupted})
	require.False(t, requireFailure(t, err, Cancelled).Touched)
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	requireAll(t, 0, after, "nothing was written")

	planned := request
	planned.DryRun, planned.Yes = true, true
	user, err := makeStick(t, planned)
	require.NoError(t, err)
	require.True(t, user.Saw("would erase and write"))
	after, err = os.ReadFile(file)
	require.NoError(t, err)
	requireAll(t, 0, after, "a dry run writes nothing")

	user, err = makeStick(t, request, asktest.Answer{Question: "erase " + device, Text: "olaf"})
	require.NoError(t, err)
	require.True(t, user.Saw("the boot stick of olaf is written and compared (9.44 MB"), user.Said())
	after, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, data, after[:len(data)])

	request.NoSecrets = false
	_, err = makeStick(t, request)
	require.ErrorContains(t, err, "was not made by k3splan and would ignore secrets")
	request.NoSecrets, request.Force = true, ""
	_, err = makeStick(t, request)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "it is a file behind a loop device")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, Make(ctx, request, noProject{t}, asktest.New(t), Streams{}))
}

func TestProgressInSteps(t *testing.T) {
	for done, want := range map[int64]string{0: "writing 0%", 99: "writing 0%", 100: "writing 10%", 999: "writing 90%", 1000: "writing 100%"} {
		require.Equal(t, want, Progress{Phase: Writing, Done: done, Total: 1000}.phase())
	}
	require.Equal(t, "1.00 kB of 2.00 kB, 3.00 MB/s, 1m30s left", Progress{Done: 1000, Total: 2000, Rate: 3e6, Remaining: 9e10}.detail())
	require.Equal(t, "0 B of 0 B", Progress{}.detail())
}

func TestProblemsInAWorkbook(t *testing.T) {
	require.Equal(t, diag.Problems{{File: "plans/cluster.xlsx!hosts", Hint: "set boot in plans/cluster.xlsx!hosts"}, {File: "nixConfigs/olaf.nix"}},
		inTable(diag.Problems{{File: "plans/hosts.csv", Hint: "set boot in plans/hosts.csv"}, {File: "nixConfigs/olaf.nix"}}, "plans/cluster.xlsx!hosts"))
}
