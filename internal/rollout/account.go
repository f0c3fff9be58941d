package rollout

import (
	"context"
	"fmt"

	"k3splan/internal/diag"
	"k3splan/internal/remote"
)

// trusted prints "trusted" if Nix accepts systems that were built elsewhere from the user "$1".
const trusted = `
set -f # one of the words may be *
groups=$(id -Gn "$1")
for word in $(sed -n 's/^ *\(extra-\)\{0,1\}trusted-users *=//p' "${NIX_CONF_DIR:-/etc/nix}/nix.conf" 2> /dev/null); do
  case $word in "$1" | '*') echo trusted;; @*) for group in $groups; do if [ "@$group" = "$word" ]; then echo trusted; fi; done;; esac
done
`

// CheckAccount checks whether a user other than k3splan's own can deploy: log in, become root without a
// password, and hand systems to Nix. The error has a hint.
func CheckAccount(ctx context.Context, machine remote.Machine) error {
	if err := machine.LogIn(ctx); err != nil {
		return diag.WithHint(fmt.Errorf("%s cannot log in: %s", machine.Target(), reason(err)), diag.HintOf(err))
	}
	if machine.Host.Target.Local || machine.User == "root" {
		return nil
	}
	if _, err := machine.Run(ctx, "", "true"); err != nil {
		return diag.WithHint(fmt.Errorf("%s cannot become root without a password: %s", machine.Target(), reason(err)),
			"in the host's configuration, for now: security.sudo.wheelNeedsPassword = false; or use --as root")
	}
	out, err := machine.Script(ctx, trusted, machine.User)
	if err != nil {
		return fmt.Errorf("%s: %s", machine.Target(), reason(err))
	}
	if out == "" {
		return diag.WithHint(fmt.Errorf("Nix on %s does not accept systems from %s that were built elsewhere", machine.Host.Target.Host, machine.User),
			fmt.Sprintf("in the host's configuration, for now: nix.settings.trusted-users = [ \"root\" %q ]; or use --as root", machine.User))
	}
	return nil
}
