package asktest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
)

func TestScript(t *testing.T) {
	user := New(t, Yes("rotate"), No("restart"), Answer{Question: "erase /dev/sdb?", Text: "olaf"},
		Answer{Question: "erase", Text: "ulf"}, Answer{Question: "Password", Text: "horse"}, Answer{Question: "rotate", Err: ask.ErrNoTerminal})
	ctx := t.Context()
	require.NoError(t, user.Confirm(ctx, "rotate the token?"))
	require.ErrorIs(t, user.Confirm(ctx, "restart the servers?"), ask.ErrDeclined)
	require.NoError(t, user.Type(ctx, "erase /dev/sdb?", "olaf"))
	require.ErrorIs(t, user.Type(ctx, "erase /dev/sdb?", "olaf"), ask.ErrDeclined)
	password, err := user.NewPassword(ctx)
	require.NoError(t, err)
	require.Equal(t, "horse", string(password))
	require.ErrorIs(t, user.Confirm(ctx, "rotate the token?"), ask.ErrNoTerminal)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, user.Confirm(cancelled, "and now?"), ask.ErrInterrupted)
	progress := user.Progress(2)
	progress.Step("olaf", "building", "1 of 7")
	progress.Done("olaf", "deployed")
	require.Equal(t, []string{"and now?", "olaf: building", "olaf: deployed"}, user.Said()[6:])
}

func TestConfirmed(t *testing.T) {
	user := ask.Confirmed(New(t, Answer{Question: "Password", Text: "horse"}))
	require.NoError(t, user.Confirm(t.Context(), "rotate the token?"))
	require.NoError(t, user.Type(t.Context(), "erase /dev/sdb?", "olaf"))
	_, err := user.NewPassword(t.Context())
	require.NoError(t, err)
}
