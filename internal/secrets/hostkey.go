package secrets

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// HostKeyName is the name of the private ssh key of a host, for a [Vault].
func HostKeyName(host string) string { return path.Join(HostKeys, host+hostKeyEnding) }

// NewHostKey makes an ssh key for a host: the private part as a file that sshd takes, without
// passphrase, and the public one. The host's name becomes its comment.
func NewHostKey(host string) (private []byte, public ssh.PublicKey, err error) {
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make an ssh host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(privateKey, host)
	if err != nil {
		return nil, nil, fmt.Errorf("make an ssh host key: %w", err)
	}
	if public, err = ssh.NewPublicKey(publicKey); err != nil {
		return nil, nil, fmt.Errorf("make an ssh host key: %w", err)
	}
	return pem.EncodeToMemory(block), public, nil
}

// ParseHostKey returns the public part of a host's private ssh key. The error is fit to be a
// problem's message and shows nothing of the key.
func ParseHostKey(private []byte) (ssh.PublicKey, error) {
	public, f := parseHostKey(private)
	if f != nil {
		return nil, errors.New(f.message)
	}
	return public, nil
}

func parseHostKey(private []byte) (ssh.PublicKey, *finding) {
	bad := func(message, hint string) (ssh.PublicKey, *finding) {
		return nil, &finding{diag.Error, codeInvalid, message, hint}
	}
	signer, err := ssh.ParsePrivateKey(private)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return bad("is an ssh key with a passphrase, which sshd cannot enter", "remove the passphrase with `ssh-keygen -p`")
	case err != nil && bytes.HasPrefix(bytes.TrimSpace(private), []byte("ssh-")):
		return bad("is a public ssh key; the private one belongs here", "")
	case err != nil: // the parser's own words may quote
		return bad("is not a private ssh key", "")
	case signer.PublicKey().Type() != ssh.KeyAlgoED25519:
		return bad("is an ssh key of another type than ed25519", "")
	case !bytes.HasSuffix(private, []byte("\n")):
		return bad("has no newline at its end, and sshd would refuse it", "")
	}
	return signer.PublicKey(), nil
}

// HostKeyFile is the place of the private ssh key that a host gets, like [Store.InitToken]; "" if
// k3splan has none for it.
func (s *Store) HostKeyFile(host string) string {
	if _, ok := s.hostKeys[host]; !ok {
		return ""
	}
	return s.At(HostKeyName(host))
}

// HostKey is the public part of the private ssh key that a host gets; nil if there is none, if it
// could not be read, or if reading it takes too long to be done in passing (pass).
func (s *Store) HostKey(host string) ssh.PublicKey { return s.hostKeys[host] }

// readHostKeyFiles reads the folder of the hosts' private keys, as plain files.
func (o *opening) readHostKeyFiles() {
	files, shared, err := (folder{o.folder.path(HostKeys)}).names()
	if err != nil {
		o.report(inSecrets(HostKeys), 0, finding{diag.Error, codeInvalid, err.Error(), "the hosts' ssh keys are in a folder " + inSecrets(HostKeys) + " of mode 0700"})
		return
	}
	if shared != 0 {
		f := sharedFolder(shared)
		f.hint = "chmod 0700 " + inSecrets(HostKeys)
		o.report(inSecrets(HostKeys), 0, f)
	}
	var names []string
	for _, file := range files {
		switch name := path.Join(HostKeys, file); ClassOf(name) {
		case Leftover:
			o.report(inSecrets(name), 0, leftBehind(name))
		case Secret:
			names = append(names, name)
		}
	}
	o.readHostKeys(names)
}

// readHostKeys checks the hosts' private keys. names are those of all secrets.
func (o *opening) readHostKeys(names []string) {
	owners := map[string]string{} // hosts, by key
	for _, name := range names {
		base, below := strings.CutPrefix(name, HostKeys+"/")
		if !below {
			continue
		}
		host, isKey := strings.CutSuffix(base, hostKeyEnding)
		if !isKey || !o.hosts[host] {
			o.reportHostKeyOrphan(name, host, isKey)
			continue
		}
		o.hostKeys[host] = nil
		if o.where.Kind == plan.SecretPass { // each would start gpg
			continue
		}
		content, ok := o.secret(name)
		if !ok {
			continue
		}
		public, f := parseHostKey(content)
		if f != nil {
			if f.hint == "" {
				f.hint = "remove it and run `k3splan known-hosts make " + host + "`, or adopt the key that the machine has with `k3splan known-hosts scan " + host + "`"
			}
			o.report(o.At(name), 0, *f)
			continue
		}
		blob := string(public.Marshal())
		if other, taken := owners[blob]; taken {
			o.report(o.At(name), 0, finding{diag.Error, codeDuplicate, "is the same ssh key as " + o.At(HostKeyName(other)) + ": the two machines could not be told apart",
				"remove the one that was copied, then run `k3splan known-hosts make HOST`"})
		}
		owners[blob] = host
		o.hostKeys[host] = public
	}
}

func (o *opening) reportHostKeyOrphan(name, host string, isKey bool) {
	f := finding{diag.Warning, codeOrphan, "is not named like a host's ssh key", "a name is like: olaf" + hostKeyEnding}
	switch {
	case o.needs.Partial:
		return
	case isKey:
		f.message, f.hint = "is the ssh key of no host of the plan", ""
		if nearest := diag.Nearest(host, o.needs.Hosts); nearest != "" {
			f.hint = didYouMean(nearest + hostKeyEnding)
		}
	}
	o.report(o.At(name), 0, f)
}
