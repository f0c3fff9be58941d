package rollout

import (
	"context"
	"fmt"

	"k3splan/internal/colmena"
)

// AccountError says why an account cannot deploy, and how to mend it.
type AccountError struct{ message, hint string }

func (e *AccountError) Error() string { return e.message }

// Hint says how to mend it.
func (e *AccountError) Hint() string { return e.hint }

// trusted prints whether Nix takes systems that were built elsewhere from the user "$1".
const trusted = `
groups=$(id -Gn "$1")
for word in $(sed -n 's/^ *\(extra-\)\{0,1\}trusted-users *=//p' "${NIX_CONF_DIR:-/etc/nix}/nix.conf" 2> /dev/null); do
  case $word in "$1" | '*') echo trusted;; @*) for group in $groups; do if [ "@$group" = "$word" ]; then echo trusted; fi; done;; esac
done
`

// CheckAccount finds out whether a user can deploy who is not k3splan's own: whether it can log in,
// become root without a password, and hand systems to Nix. The error is an *AccountError.
func CheckAccount(ctx context.Context, remote colmena.Remote) error {
	program, args := remote.Plain("true")
	if _, err := colmena.Output(ctx, colmena.Command{Program: program, Args: args}); err != nil {
		return &AccountError{fmt.Sprintf("%s cannot log in: %s", remote.Target(), reason(err)),
			"ssh must work without a password: ssh-copy-id " + remote.Target()}
	}
	if remote.Local || remote.User == "root" {
		return nil
	}
	program, args = remote.Root("true")
	if _, err := colmena.Output(ctx, colmena.Command{Program: program, Args: args}); err != nil {
		return &AccountError{fmt.Sprintf("%s cannot become root without a password: %s", remote.Target(), reason(err)),
			"in the host's configuration, for now: security.sudo.wheelNeedsPassword = false; or use --as root"}
	}
	out, err := colmena.RunScript(ctx, remote, trusted, remote.User)
	if err != nil {
		return &AccountError{fmt.Sprintf("%s: %s", remote.Target(), reason(err)), ""}
	}
	if out == "" {
		return &AccountError{fmt.Sprintf("Nix on %s takes no systems from %s that were built elsewhere", remote.Host, remote.User),
			fmt.Sprintf("in the host's configuration, for now: nix.settings.trusted-users = [ \"root\" %q ]; or use --as root", remote.User)}
	}
	return nil
}
