package diag

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHints(t *testing.T) {
	plain := errors.New("the disk is full")
	inner := WithHint(plain, "remove something")
	for name, test := range map[string]struct {
		err        error
		text, hint string
	}{
		"none":           {plain, "the disk is full", ""},
		"empty":          {WithHint(plain, ""), "the disk is full", ""},
		"one":            {inner, "the disk is full", "remove something"},
		"wrapped":        {fmt.Errorf("writing: %w", inner), "writing: the disk is full", "remove something"},
		"outermost wins": {WithHint(fmt.Errorf("writing: %w", inner), "elsewhere"), "writing: the disk is full", "elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualError(t, test.err, test.text)
			require.Equal(t, test.hint, HintOf(test.err))
			require.ErrorIs(t, test.err, plain)
		})
	}
	require.NoError(t, WithHint(nil, "nothing to mend"))
}

func TestFromError(t *testing.T) {
	err := &fs.PathError{Op: "open", Path: "/somewhere/plans/k3s.csv", Err: WithHint(errors.New("is a folder, not a file"), "remove it")}
	require.Equal(t, Problem{File: "plans/k3s.csv", Severity: Error, Code: "file-unreadable", Message: "is a folder, not a file", Hint: "remove it"},
		FromError(fmt.Errorf("reading: %w", err), "plans/k3s.csv", "file-unreadable"))
}
