package project_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
)

func TestAWeakPasswordIsConfirmed(t *testing.T) {
	for name, test := range map[string]struct {
		password string
		script   []asktest.Answer
		want     error
		weak     bool
	}{
		"good":                {"correct horse", nil, nil, false},
		"short, all the same": {"geheim", []asktest.Answer{asktest.Yes("is shorter than 8 characters")}, nil, true},
		"short, not so":       {"geheim", []asktest.Answer{asktest.No("is shorter than 8 characters")}, ask.ErrDeclined, true},
		"a host":              {"Olaf", []asktest.Answer{asktest.No("is a name of the plan")}, ask.ErrDeclined, true},
		"a common one":        {"password1", []asktest.Answer{asktest.No("most common")}, ask.ErrDeclined, true},
		"one character":       {"aaaaaaaaaaaa", []asktest.Answer{asktest.No("one character repeated")}, ask.ErrDeclined, true},
		"interrupted":         {"geheim", []asktest.Answer{{Question: "is shorter", Err: ask.ErrInterrupted}}, ask.ErrInterrupted, true},
		"empty":               {"", nil, project.ErrPassword, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "rack")
			_, err := project.Setup(dir, k3splan.Files)
			require.NoError(t, err)
			p, _ := plan.Load(files.In(dir))
			vault, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
			require.NoError(t, err)

			user := asktest.New(t, append([]asktest.Answer{{Question: "assword", Text: test.password}}, test.script...)...)
			set, err := project.SetPassword(t.Context(), user, p, vault, project.PasswordChange{Asked: true})
			require.ErrorIs(t, err, test.want)
			there, hasErr := vault.Has("passwd")
			require.NoError(t, hasErr)
			require.Equal(t, test.want == nil, there)
			require.Equal(t, test.want == nil, len(set.Places) == 1)
			if test.password != "" {
				require.False(t, user.Saw(test.password))
			}

			// a script has no terminal to ask on
			user = asktest.New(t)
			_, err = project.SetPassword(t.Context(), user, p, vault, project.PasswordChange{Given: []byte(test.password)})
			require.Equal(t, test.password == "", err != nil)
			require.Equal(t, test.weak, user.Saw("can be guessed"), strings.Join(user.Said(), "\n"))
		})
	}
}
