package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// scanTime is how long a connection may take.
const scanTime = time.Minute

// HostKey returns the machine's key, of the best type that it has, whatever keys it is known by. Nobody
// logs in. The connection is made like all others, jump hosts included.
func (m Machine) HostKey(ctx context.Context) (key HostKey, err error) {
	folder, err := os.MkdirTemp(filepath.Dir(m.config), "scan-")
	if err != nil {
		return key, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	known := filepath.Join(folder, knownName)

	var said error
	for _, algorithms := range []string{ssh.KeyAlgoED25519, "+" + ssh.KeyAlgoED25519} { // the best, else any
		said = run.Run(ctx, run.Command{Program: "ssh", Args: m.scan(known, algorithms), Timeout: scanTime})
		if missing := (*run.MissingError)(nil); errors.As(said, &missing) || ctx.Err() != nil {
			return key, said
		}
		line, err := os.ReadFile(known)
		if err != nil || len(line) == 0 {
			continue
		}
		_, _, public, _, _, err := ssh.ParseKnownHosts(line)
		if err != nil {
			return key, fmt.Errorf("the key of %s: %w", m.Host.Name, err)
		}
		if reason := unfit(public); reason != "" {
			return key, fmt.Errorf("the key of %s %s", m.Host.Name, reason)
		}
		return HostKey{Public: public}, nil
	}
	if said == nil {
		return key, fmt.Errorf("%s at %s showed no key", m.Host.Name, m.Host.Target.Host)
	}
	failed := m.failure(said)
	return key, diag.WithHint(fmt.Errorf("%s at %s showed no key: %s", m.Host.Name, m.Host.Target.Host, Reason(failed)), diag.HintOf(failed))
}

// scan returns ssh's arguments that write the machine's key into a file of known hosts, in which it must
// not be yet, and then end without logging in.
func (m Machine) scan(known, algorithms string) []string {
	return m.ssh([]string{
		"-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no",
		"-o", "HostKeyAlias=" + m.Host.Name, "-o", "ControlPath=none",
		"-o", "HostKeyAlgorithms=" + algorithms,
		"-o", "PreferredAuthentications=none", // after the exchange of keys there is nothing to do
	}, "true")
}
