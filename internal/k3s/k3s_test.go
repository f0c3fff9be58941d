package k3s

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answers is a machine that answers commands and remembers them.
type answers struct {
	calls []string
	stdin []string
	give  map[string]func() (string, error)
}

func (a *answers) run(_ context.Context, stdin string, command ...string) (string, error) {
	call := strings.Join(command, " ")
	a.calls = append(a.calls, call)
	a.stdin = append(a.stdin, stdin)
	if give := a.give[call]; give != nil {
		return give()
	}
	return "", errors.New("no such command")
}

const inside = "nixos-container run olaf-k3s-server -- "

func TestToken(t *testing.T) {
	out := "K10abc::server:secret\r\n"
	machine := &answers{give: map[string]func() (string, error){inside + "cat /var/lib/rancher/k3s/server/token": func() (string, error) { return out, nil }}}
	server := Server{"olaf-k3s-server", machine.run}
	token, err := server.Token(context.Background())
	require.NoError(t, err)
	require.Equal(t, "K10abc::server:secret", token)
	for _, out = range []string{"", "two words", "two\nlines"} {
		_, err := server.Token(context.Background())
		require.ErrorContains(t, err, "ask olaf-k3s-server for its token")
		require.NotContains(t, err.Error(), "words")
	}
}

// The token goes by standard input, and the file changes in one step.
func TestPutToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new folder", "token")
	var words []string
	run := func(_ context.Context, stdin string, command ...string) (string, error) {
		words = append(words, command...)
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, token := range []string{"first-token", "second-token"} {
		require.NoError(t, putToken(context.Background(), run, file, token))
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, token+"\n", string(content))
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o400), info.Mode().Perm())
		require.NotContains(t, strings.Join(words, " "), token)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestForgetSeal(t *testing.T) {
	for name, test := range map[string]struct{ before, after string }{
		"sealed":       {`{"version":1,"time":"x","secrets":{"salt":"s","kinds":{"passwd":"a","server-token":"b"}},"inputs":{"n":12345678901234567890}}`, `{"inputs":{"n":12345678901234567890},"secrets":{"kinds":{"passwd":"a"},"salt":"s"},"time":"x","version":1}`},
		"not sealed":   {`{"secrets":{"kinds":{"passwd":"a"}}}`, ""},
		"no receipt":   {"", ""},
		"another form": {`{"secrets":[]}`, ""},
		"no JSON":      {"half a rec", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var written []string
			run := func(_ context.Context, stdin string, command ...string) (string, error) {
				if strings.Contains(stdin, "mv ") {
					written = append(written, stdin)
				}
				return test.before, nil
			}
			require.NoError(t, forgetSeal(context.Background(), run))
			if test.after == "" {
				require.Empty(t, written)
				return
			}
			require.Len(t, written, 1)
			require.Contains(t, written[0], "\n"+test.after+"\n")
		})
	}
}
