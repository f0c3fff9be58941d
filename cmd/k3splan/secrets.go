package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
	"k3splan/internal/secrets"
	"k3splan/internal/text"
)

const (
	// programVariable says Colmena's key commands where k3splan is.
	programVariable = "K3SPLAN"
	// unlockedVariable names the folder where they find what this deploy has decrypted. It is a path,
	// not a secret.
	unlockedVariable = "K3SPLAN_UNLOCKED"
)

func (a *app) secretsCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "secrets",
		Short: "Keep the secrets: list, show, edit, move, audit",
		Long: `The secrets are the k3s tokens, the admins' password hashes and the hosts' ssh keys. The key
` + "`secrets`" + ` in plans/network.yaml says how they are kept:

  files  plain files in secrets/ that only you can read; never in git (default)
  age    files secrets/*.age, encrypted to the public keys (age1…, ssh-ed25519,
         ssh-rsa) in secrets/recipients; these may be committed
  pass   entries of the program pass, below pass_prefix

With age, the private key is looked for in ~/.config/age/, ~/.ssh/id_ed25519 and ~/.ssh/id_rsa, or in
the files named by K3SPLAN_IDENTITY. Decrypted secrets are only in memory, or in a private folder of
the runtime directory, which is removed at the end, or after a crash at the next start.`,
		Example: "  k3splan secrets list\n  k3splan secrets move --to age\n  k3splan secrets audit",
	}, a.secretsListCommand(), a.secretsShowCommand(), a.secretsEditCommand(),
		a.secretsMoveCommand(), a.secretsRekeyCommand(), a.secretsAuditCommand())
}

// vault opens the project's secrets; ask may be nil.
func (a *app) vault(ask secrets.Ask) (*plan.Plan, *secrets.Vault, error) {
	w, err := a.workspace()
	if err != nil {
		return nil, nil, err
	}
	p, _ := w.Plan() // other mistakes in the tables do not matter here
	vault, err := w.Vault(ask)
	if err != nil {
		return nil, nil, usageError(diag.WithHint(err, cmp.Or(diag.HintOf(err), "k3splan validate")))
	}
	return p, vault, nil
}

// secretReader returns the entries of the project's secrets, each read once, so that a passphrase is
// asked for once.
func (a *app) secretReader(p *project.Project) func(entry string) ([]byte, error) {
	contents := map[string][]byte{}
	return func(entry string) ([]byte, error) {
		if content, read := contents[entry]; read {
			return content, nil
		}
		vault, err := a.openVault(p)
		if err != nil {
			return nil, err
		}
		contents[entry], err = vault.Read(entry)
		return contents[entry], err
	}
}

// openVault opens the project's secrets once.
func (a *app) openVault(p *project.Project) (*secrets.Vault, error) {
	if a.openedVault == nil {
		vault, err := p.Vault(a.asker())
		if err != nil {
			return nil, err
		}
		a.openedVault = vault
	}
	return a.openedVault, nil
}

// asker asks for passphrases on the terminal; it is nil where there is none.
func (a *app) asker() secrets.Ask {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	_ = terminal.Close()
	return func(prompt string) ([]byte, error) { return a.user(false).Passphrase(context.Background(), prompt) }
}

func (a *app) secretsListCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:     "list",
		Short:   "List the secrets, without their contents",
		Long:    "Lists the secrets by name, where each is kept and what it is. Nothing is decrypted.",
		Example: "  k3splan secrets list\n  k3splan secrets list --json | jq -r '.[].name'",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, vault, err := a.vault(nil)
			if err != nil {
				return err
			}
			names, err := vault.List()
			if err != nil {
				return err
			}
			entries := []secretEntry{}
			var rows [][]string
			for _, name := range names {
				e := secretEntry{name, vault.At(name), secrets.Describe(name)}
				entries = append(entries, e)
				rows = append(rows, []string{e.Name, e.Where, e.Kind})
			}
			if len(entries) == 0 && !asJSON {
				a.say("there are no secrets yet: `k3splan setup` makes the tokens, `k3splan passwd` a password")
				return nil
			}
			return a.print(asJSON, entries, func() (string, error) { return a.table([]string{"NAME", "WHERE", "KIND"}, rows), nil })
		},
	}
	addJSON(command, &asJSON, []secretEntry{})
	return command
}

// secretEntry is a secret without its content.
type secretEntry struct {
	Name  string `json:"name"`
	Where string `json:"where"`
	Kind  string `json:"kind"`
}

func (a *app) secretsShowCommand() *cobra.Command {
	var raw bool
	command := &cobra.Command{
		Use:   "show NAME",
		Short: "Print one secret",
		Long: `Prints one secret, decrypted, to standard output. With --raw exactly as it was stored, and without
asking for a passphrase if this k3splan was started by a deploy that has asked already: this is the
command that Colmena calls for each secret that it uploads.`,
		Example:           "  k3splan secrets show init-token",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeSecrets,
		RunE: func(_ *cobra.Command, args []string) error {
			ask := a.asker()
			if raw {
				ask = nil // its standard input and terminal are Colmena's
			}
			_, vault, err := a.vault(ask)
			if err != nil {
				return err
			}
			name := vault.NameOf(args[0])
			if dir := os.Getenv(unlockedVariable); raw && dir != "" {
				content, err := secrets.ReadRuntime(dir, name)
				if err == nil {
					_, err = a.stdout.Write(content)
				}
				if !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			content, err := vault.Read(name)
			if err != nil {
				return a.noSecret(vault, name, err)
			}
			if !raw && !bytes.HasSuffix(content, []byte("\n")) {
				content = append(content, '\n')
			}
			_, err = a.stdout.Write(content)
			return err
		},
	}
	command.Flags().BoolVar(&raw, "raw", false, "print exactly what was stored, and never ask")
	return command
}

// noSecret adds the nearest name to the error about a secret that is not there.
func (a *app) noSecret(vault *secrets.Vault, name string, err error) error {
	names, listErr := vault.List()
	if !errors.Is(err, fs.ErrNotExist) || listErr != nil {
		return err
	}
	return noSuchSecret(name, names)
}

func noSuchSecret(name string, names []string) error {
	return &exitError{code: exitInvalid, err: fmt.Errorf("there is no secret %q", name), hint: cmp.Or(diag.DidYouMean(name, names), "k3splan secrets list")}
}

func (a *app) completeSecrets(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var words []cobra.Completion
	if _, vault, err := a.vault(nil); err == nil && len(args) == 0 {
		names, _ := vault.List()
		for _, name := range names {
			words = append(words, cobra.CompletionWithDesc(name, secrets.Describe(name)))
		}
	}
	return words, nothingElse
}

func (a *app) secretsEditCommand() *cobra.Command {
	var edit project.SecretEdit
	command := &cobra.Command{
		Use:   "edit NAME",
		Short: "Change one secret in an editor",
		Long: `Opens a secret in $VISUAL, $EDITOR or vi. The result is checked before it replaces the secret; if
it has the wrong form, or nothing has changed, nothing is stored. The editor works on a file in
the runtime directory, which is removed afterwards with everything that the editor left beside it.

A secret that does not exist yet is made if k3splan uses one of that name: init-token, agent-token,
passwd, HOSTpasswd, hosts/HOST_ed25519. --new makes one of any other name, for your own Nix files.

The token of a running cluster is changed by ` + "`k3splan token rotate`" + `, not here; --force edits it all
the same, for a cluster that does not run yet.`,
		Example:           "  k3splan secrets edit olafpasswd\n  k3splan secrets edit wireguard.key --new",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeSecrets,
		RunE: func(_ *cobra.Command, args []string) error {
			edit.Name, edit.Editor = args[0], a.editor
			return a.editSecret(edit)
		},
	}
	command.Flags().BoolVar(&edit.Force, "force", false, "change a token that exists, too")
	command.Flags().BoolVar(&edit.New, "new", false, "make a secret that k3splan does not use itself")
	return command
}

func (a *app) editSecret(edit project.SecretEdit) error {
	p, err := a.validPlan()
	if err != nil {
		return err
	}
	_, vault, err := a.vault(a.asker())
	if err != nil {
		return err
	}
	edited, err := project.EditSecret(p, vault, edit)
	a.printProblems(a.stderr, edited.Problems)
	switch {
	case errors.Is(err, project.ErrWrongSecret):
		return usageError(err)
	case err != nil:
		return err
	case !edited.Changed:
		a.say("nothing was changed")
	case edited.Used:
		a.say("stored %s; it takes effect with the next deploy", edited.Place)
	default:
		a.say("stored %s; k3splan does not use it itself", edited.Place)
	}
	return nil
}

// checkSecret prints what is wrong with a secret, and fails if that is an error.
func (a *app) checkSecret(vault *secrets.Vault, name string, content []byte) error {
	problems := secrets.Check(name, content)
	for i := range problems {
		problems[i].File = vault.At(name)
	}
	a.printProblems(a.stderr, problems)
	if problems.Errors() > 0 {
		return &exitError{code: exitInvalid, err: errors.New("the secret is not of the right form; nothing was changed"), hint: "see above"}
	}
	return nil
}

// editor opens a file in the user's editor.
func (a *app) editor(file string) error {
	editor := "vi"
	for _, variable := range []string{"VISUAL", "EDITOR"} {
		if value := strings.TrimSpace(os.Getenv(variable)); value != "" {
			editor = value
			break
		}
	}
	// as git does: the variable may hold options
	args := []string{"-c", editor + ` "$@"`, editor}
	if words := strings.Fields(editor); slices.Contains([]string{"vim", "nvim"}, filepath.Base(words[0])) {
		// no copies of the text in the home folder
		args = append(args, "-n", "-i", "NONE", "--cmd", "set nobackup nowritebackup noundofile")
	}
	err := run.Run(context.Background(), run.Command{
		Program: "sh", Args: append(args, file), Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr,
	})
	if err != nil {
		return fmt.Errorf("the editor %s failed, nothing was changed: %w", editor, err)
	}
	return nil
}

func (a *app) secretsMoveCommand() *cobra.Command {
	var to, prefix string
	command := &cobra.Command{
		Use:   "move --to files|age|pass",
		Short: "Keep the secrets in another way",
		Long: `Takes all secrets over into another back end, reads each of them back, and only then writes the
choice to plans/network.yaml (or the sheet network of the workbook) and removes them from where they
were. What a link led to is not removed: the file is named, for it still holds the secret and may be
needed by something else. An interrupted move can be run again; with the back end that is in use
already, it takes over secrets in plain text.

age needs secrets/recipients, pass a --prefix for the entries of this cluster.`,
		Example: "  k3splan secrets move --to age\n  k3splan secrets move --to pass --prefix k3splan/my-rack\n  k3splan secrets move --to files",
		Args: func(command *cobra.Command, args []string) error {
			if len(args) == 1 && to == "" && slices.Contains(plan.SecretKinds(), args[0]) {
				return &exitError{code: exitInvalid, err: fmt.Errorf("unexpected argument %q", args[0]), hint: "k3splan secrets move --to " + args[0]}
			}
			return usageArgs(cobra.NoArgs)(command, args)
		},
		RunE: func(*cobra.Command, []string) error { return a.moveSecrets(plan.SecretKind(to), prefix) },
	}
	command.Flags().StringVar(&to, "to", "", "the back end: `files|age|pass`")
	command.Flags().StringVar(&prefix, "prefix", "", "the `FOLDER` of the entries in pass (default: that in network.yaml)")
	_ = command.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(plan.SecretKinds(), nothingElse))
	return command
}

func (a *app) moveSecrets(kind plan.SecretKind, prefix string) error {
	p, err := a.validPlan()
	if err != nil {
		return err
	}
	to := plan.SecretStore{Kind: kind, Prefix: prefix}
	switch {
	case kind == "":
		return &exitError{code: exitInvalid, err: errors.New("--to is missing"), hint: "--to files, --to age or --to pass"}
	case !slices.Contains(plan.SecretKinds(), string(kind)):
		return &exitError{code: exitInvalid, err: fmt.Errorf("secrets cannot be kept by %q", kind), hint: "--to files, --to age or --to pass"}
	case kind != plan.SecretPass && prefix != "":
		return usageError(errors.New("--prefix is for pass alone"))
	case kind == plan.SecretPass && prefix == "":
		to.Prefix = p.Network.Secrets.Prefix
	}
	if kind == plan.SecretPass {
		if to.Prefix == "" {
			return &exitError{code: exitInvalid, err: errors.New("--prefix is missing: the folder of this cluster's entries in pass"), hint: "--prefix k3splan/my-rack"}
		}
		if err := plan.CheckPassPrefix(to.Prefix); err != nil {
			return usageError(fmt.Errorf("--prefix %q: %w", to.Prefix, err))
		}
	}
	from := p.Network.Secrets
	moved, err := project.MoveSecrets(a.opened.Dir, to, a.asker())
	if moved != nil {
		for _, file := range moved.Files {
			a.say("changed %s", file)
			a.warnOpen(a.opened.Dir, file)
		}
		a.sayLeftSecrets(moved.Left)
	}
	if err != nil {
		return err
	}
	if len(moved.Names) == 0 {
		a.say("there was nothing to move")
	} else {
		a.say("moved %s to %s: %s", text.Count(len(moved.Names), "secret"), kind, strings.Join(moved.Names, ", "))
	}
	if len(moved.Foreign) > 0 {
		a.say("k3splan does not use %s itself: a Nix file that names one as a file no longer finds it,\n"+
			"and needs a keyCommand instead: k3splan secrets show --raw NAME", strings.Join(moved.Foreign, ", "))
	}
	if from.Kind == plan.SecretFiles && len(moved.Names) > 0 {
		a.say("The plain files are removed, but a disk or a backup may still hold what was in them.")
	}
	return nil
}

// sayLeftSecrets warns of what was moved and still is elsewhere.
func (a *app) sayLeftSecrets(left []project.Left) {
	for _, l := range left {
		holds := "still holds the secret"
		if strings.HasSuffix(l.Place, ".age") {
			holds += ", encrypted"
		}
		message := fmt.Sprintf("%s was a link; where it led, %s %s", l.Place, l.File, holds)
		hint := "unless something else needs it: rm " + run.Word(l.File)
		if l.File == "" {
			message = fmt.Sprintf("%s had another name as well (a hard link), which %s", l.Place, holds)
			hint = fmt.Sprintf("to find it, from the top of its file system: find / -xdev -inum %d", l.Inode)
		}
		a.warn("%s", message)
		fmt.Fprint(a.stderr, a.hints(a.stderr, "", hint))
	}
}

func (a *app) secretsRekeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rekey",
		Short: "Encrypt all secrets again, after a change of secrets/recipients",
		Long: `Decrypts all secrets that age keeps and encrypts them to the present secrets/recipients. Anyone removed
from that file can still read old versions, in git for instance: rotate what they knew.`,
		Example: "  k3splan secrets rekey",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if _, err := a.validPlan(); err != nil {
				return err
			}
			_, vault, err := a.vault(a.asker())
			if err != nil {
				return err
			}
			if vault.Where().Kind != plan.SecretAge {
				return usageError(fmt.Errorf("the secrets are kept by %s; only those of age are encrypted to recipients", vault.Where().Kind))
			}
			names, err := vault.Rekey()
			if err != nil {
				return err
			}
			a.say("encrypted %s again", text.Count(len(names), "secret"))
			return nil
		},
	}
}

// unlock decrypts the secrets of the hosts once, asking for a passphrase if need be, and returns the
// environment in which Colmena's key commands find them. Where they are plain files there is nothing
// to do. lock removes them again and must be called.
func (a *app) unlock(p *project.Project, hosts []*plan.Host) (env []string, lock func() error, err error) {
	lock = func() error { return nil }
	if p.Secrets.Plain() {
		return nil, lock, nil
	}
	vault, err := a.openVault(p)
	if err != nil {
		return nil, lock, err
	}
	contents := map[string][]byte{}
	for _, host := range hosts {
		for _, secret := range hive.Secrets(p, host) {
			if contents[secret.Entry] != nil {
				continue
			}
			content, err := vault.Read(secret.Entry)
			if err != nil {
				return nil, lock, err
			}
			if err := a.checkSecret(vault, secret.Entry, content); err != nil {
				return nil, lock, err
			}
			contents[secret.Entry] = content
		}
	}
	program, err := os.Executable()
	if err != nil {
		return nil, lock, err
	}
	runtime, err := secrets.NewRuntime()
	if err != nil {
		return nil, lock, err
	}
	for name, content := range contents {
		if _, err := runtime.Put(name, content); err != nil {
			return nil, lock, errors.Join(err, runtime.Close())
		}
	}
	return []string{programVariable + "=" + program, unlockedVariable + "=" + runtime.Dir}, runtime.Close, nil
}
