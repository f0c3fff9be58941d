package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// rack is a project whose secrets are looked for everywhere.
type rack struct {
	t       *testing.T
	home    string // parent of HOME, the runtime directory and TMPDIR
	dir     string
	where   plan.SecretStore
	secrets map[string]string
	poison  [][]byte
	// witness is what programs that k3splan started saw of the machine: arguments and environments of
	// all processes
	witness string
}

const poisonPassword = "poisoned-password-of-the-test"

// newRack makes a project with random secrets, kept in one of the three ways, and programs of ours on
// PATH that tell what they see.
func newRack(t *testing.T, kind plan.SecretKind) *rack {
	t.Helper()
	r := &rack{t: t, home: secretstest.Home(t), where: plan.SecretStore{Kind: kind}, secrets: map[string]string{}}
	r.dir = filepath.Join(r.home, "a rack")
	r.witness = filepath.Join(r.home, "witness")
	require.NoError(t, os.Mkdir(r.witness, 0o700))
	require.NoError(t, os.CopyFS(r.dir, os.DirFS("../../examples/rack")))
	_, err := project.Setup(r.dir, k3splan.Files)
	require.NoError(t, err)
	hash, err := secrets.HashPassword([]byte(poisonPassword))
	require.NoError(t, err)
	contents := map[string]string{"passwd": hash + "\n", "all.pub": testKey, "recipients": secretstest.AgeKey(t) + "\n"}
	for name, content := range contents {
		require.NoError(t, files.Create(filepath.Join(r.dir, "secrets", name), []byte(content), files.Private))
	}
	vault, err := secrets.OpenVault(r.dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	names, err := vault.List()
	require.NoError(t, err)
	for _, name := range names {
		content, err := vault.Read(name)
		require.NoError(t, err)
		r.remember(name, string(content))
	}
	r.poison = append(r.poison, []byte(poisonPassword))
	if kind == plan.SecretPass {
		secretstest.Pass(t)
		r.where.Prefix = "k3splan/rack"
	}
	_, err = project.MoveSecrets(r.dir, r.where, nil)
	require.NoError(t, err)
	r.programs()
	return r
}

func (r *rack) remember(name, content string) {
	r.secrets[name] = content
	lines := strings.Split(strings.TrimSpace(content), "\n")
	text := lines[0]
	if len(lines) > 5 {
		text = lines[3] // of a private key: the first lines are those of all keys, and public
	}
	r.poison = append(r.poison, []byte(text), []byte(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(content)), "=")))
}

// programs puts a Colmena on PATH that does what the real one does with key commands, and wrappers of
// the programs that k3splan starts. Each notes the arguments and environments of all processes.
func (r *rack) programs() {
	bin := filepath.Join(r.home, "bin")
	const look = `cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >> "$WITNESS/$$" 2> /dev/null
`
	// no test leaves the machine
	scripts := map[string]string{"ssh": look + "echo 'ssh: connect to host: No route to host' >&2\nexit 255\n", "colmena": look + `
echo "colmena $*"
case $1 in apply*)
  for name in init-token agent-token passwd hosts/olaf_ed25519; do
    if [ -n "$PLAIN" ]; then cat "$PROJECT/secrets/$name"; else
      sh -c 'exec "${K3SPLAN:-k3splan}" "$@"' k3splan --project "$PROJECT" secrets show --raw "$name"
    fi | sha256sum | cut -d' ' -f1 >> "$WITNESS/uploaded"
  done
  find "$XDG_RUNTIME_DIR" -type f > "$WITNESS/runtime"
  [ -z "$CRASH" ] || kill -KILL $PPID
esac
exit ${FAIL:-0}
`}
	for _, program := range []string{"pass", "git", "nix-store", "nix-instantiate"} {
		if real, err := exec.LookPath(program); err == nil {
			scripts[program] = look + `exec ` + real + ` "$@"` + "\n"
		}
	}
	for name, script := range scripts {
		require.NoError(r.t, os.MkdirAll(bin, 0o755))
		require.NoError(r.t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	r.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	r.t.Setenv("WITNESS", r.witness)
	r.t.Setenv("PROJECT", r.dir)
	if r.where.Kind == plan.SecretFiles {
		r.t.Setenv("PLAIN", "1")
	}
}

// run runs k3splan in the project; what it says must hold no secret.
func (r *rack) run(stdin string, args ...string) (out string, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "k3splan", append([]string{"-p", r.dir}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	said, err := command.CombinedOutput()
	if command.ProcessState == nil {
		require.NoError(r.t, err)
	}
	require.False(r.t, r.leaks(said), "k3splan %v shows a secret: %s", args, said)
	return string(said), command.ProcessState.ExitCode()
}

func (r *rack) leaks(text []byte) bool {
	for _, poison := range r.poison {
		if bytes.Contains(text, poison) {
			return true
		}
	}
	return false
}

// found returns the files below the home, the project among them, in which a secret is, except where
// plain secrets are kept on purpose.
func (r *rack) found() (files []string) {
	r.t.Helper()
	require.NoError(r.t, filepath.WalkDir(r.home, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && r.where.Kind == plan.SecretFiles && file == filepath.Join(r.dir, "secrets"):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(file)
		if r.leaks(content) {
			relative, _ := filepath.Rel(r.home, file)
			files = append(files, relative)
		}
		return err
	}))
	return files
}

// requireUploaded wants Colmena to have got the very secrets.
func (r *rack) requireUploaded() {
	r.t.Helper()
	uploaded, err := os.ReadFile(filepath.Join(r.witness, "uploaded"))
	require.NoError(r.t, err)
	var want strings.Builder
	for _, name := range []string{"init-token", "agent-token", "passwd", "hosts/olaf_ed25519"} {
		sum := sha256.Sum256([]byte(r.secrets[name]))
		want.WriteString(hex.EncodeToString(sum[:]) + "\n")
	}
	require.Equal(r.t, want.String(), string(uploaded))
	require.NoError(r.t, os.Remove(filepath.Join(r.witness, "uploaded")))
}

// leftOver returns the files in the runtime directory and among the temporary ones, without the hive and
// the ssh_config of a killed k3splan, which hold paths and public keys.
func (r *rack) leftOver() (files []string) {
	r.t.Helper()
	for _, dir := range []string{"run", "tmp"} {
		require.NoError(r.t, filepath.WalkDir(filepath.Join(r.home, dir), func(file string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && entry.Name() != "guard" && !strings.Contains(file, "/k3splan-hive-") && !strings.Contains(file, "/k3splan-ssh-") {
				files = append(files, file)
			}
			return err
		}))
	}
	return files
}

func forEachKind(t *testing.T, test func(t *testing.T, r *rack)) {
	for _, kind := range []plan.SecretKind{plan.SecretFiles, plan.SecretAge, plan.SecretPass} {
		t.Run(string(kind), func(t *testing.T) { test(t, newRack(t, kind)) })
	}
}

// No command shows a secret, leaves one anywhere, or gives one to a program as an argument or in the
// environment: with each way of keeping them, when all is well and when not.
func TestNoCommandLeaksASecret(t *testing.T) {
	forEachKind(t, func(t *testing.T, r *rack) {
		done := func(stdin string, args ...string) {
			t.Helper()
			out, code := r.run(stdin, args...)
			require.Zero(t, code, "k3splan %v: %s", args, out)
		}
		done("", "setup")
		done("", "validate", "--strict")
		done("", "validate", "--json")
		done("", "configuration")
		done("", "configuration", "--json")
		done("", "render")
		done("", "render", "--diff")
		done("", "build", "--", "--verbose")
		done("", "deploy", "--no-gates", "--force", "--", "--verbose")
		r.requireUploaded()
		done("", "deploy", "--no-gates", "--force", "--keep", "karl")
		r.requireUploaded()
		done("", "secrets", "list")
		done("", "secrets", "list", "--json")
		done("", "secrets", "audit")
		done("", "secrets", "audit", "--json")
		done(poisonPassword+"\n", "passwd", "--stdin")
		done(poisonPassword+"\n", "passwd", "--stdin", "--all")
		t.Setenv("VISUAL", "") // the developer's own
		t.Setenv("EDITOR", "true")
		done("", "secrets", "edit", "passwd")

		t.Setenv("FAIL", "3")
		_, code := r.run("", "deploy", "--no-gates", "--force")
		require.Equal(t, 1, code)
		t.Setenv("FAIL", "")
		for _, wrong := range [][]string{
			{"deploy", "--no-gates", "--force", "nobody"}, {"secrets", "show", "nothing"}, {"secrets", "edit", "init-token"}, {"secrets", "move", "--to", "x"}, {"passwd", "--stdin"},
		} {
			_, code := r.run(poisonPassword+"\n"+poisonPassword+"\n", wrong...)
			require.NotZero(t, code, wrong)
		}
		require.Empty(t, r.found())
		require.Empty(t, r.leftOver())

		witnesses, err := os.ReadDir(r.witness)
		require.NoError(t, err)
		require.Greater(t, len(witnesses), 5, "programs were started and looked around")

		// the secret that is shown on purpose is the control for what is said
		shown, err := exec.Command("k3splan", "-p", r.dir, "secrets", "show", "init-token").Output()
		require.NoError(t, err)
		require.Equal(t, r.secrets["init-token"], string(shown))
		require.True(t, r.leaks(shown))
	})
}

// The controls: the searches find a secret in an argument, in the environment, in a log, in base64.
func TestTheSearchForLeaksFinds(t *testing.T) {
	r := newRack(t, plan.SecretAge)
	require.Empty(t, r.found())
	token := strings.TrimSpace(r.secrets["init-token"])

	look := func(args, env []string) {
		t.Helper()
		require.NoError(t, os.RemoveAll(r.witness))
		require.NoError(t, os.Mkdir(r.witness, 0o700))
		careless := exec.Command("sleep", "1000")
		careless.Args = append(careless.Args, args...)
		if len(args) > 0 {
			careless = exec.Command("sh", append([]string{"-c", "sleep 1000; true", "sh"}, args...)...)
		}
		careless.Env = append(os.Environ(), env...)
		careless.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		require.NoError(t, careless.Start())
		defer func() { _ = syscall.Kill(-careless.Process.Pid, syscall.SIGKILL); _ = careless.Wait() }()
		require.NoError(t, exec.Command("colmena", "build").Run())
		require.NotEmpty(t, r.found())
	}
	look([]string{token}, nil)
	look(nil, []string{"TOKEN=" + token})

	require.NoError(t, os.RemoveAll(r.witness))
	require.Empty(t, r.found())
	for _, text := range []string{token, base64.StdEncoding.EncodeToString([]byte(r.secrets["init-token"])), strings.TrimSpace(r.secrets["passwd"]), poisonPassword} {
		log := filepath.Join(r.dir, ".k3splan", "logs", "log")
		require.NoError(t, os.MkdirAll(filepath.Dir(log), 0o755))
		require.NoError(t, os.WriteFile(log, []byte("x "+text+" x"), 0o600))
		require.Equal(t, []string{"a rack/.k3splan/logs/log"}, r.found(), text)
		require.NoError(t, os.Remove(log))
	}
}

// Killed in the middle of a deploy, k3splan leaves what it had decrypted, for its owner alone; the next
// start of any command removes it.
func TestACrashedDeployIsTidiedUp(t *testing.T) {
	for _, kind := range []plan.SecretKind{plan.SecretAge, plan.SecretPass} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRack(t, kind)
			t.Setenv("CRASH", "1")
			_, code := r.run("", "deploy", "--no-gates", "--force")
			require.Equal(t, -1, code, "it was killed")
			r.requireUploaded()
			left := r.leftOver()
			require.NotEmpty(t, left)
			require.NotEmpty(t, r.found(), "the control: it is there until the next start")
			for _, file := range left {
				info, err := os.Stat(file)
				require.NoError(t, err)
				require.Zero(t, info.Mode().Perm()&0o077, file)
			}
			t.Setenv("CRASH", "")
			out, code := r.run("", "configuration", "--json")
			require.Zero(t, code)
			require.Contains(t, out, "removed the decrypted secrets")
			require.Empty(t, r.found())
			require.Empty(t, r.leftOver())
			_, code = r.run("", "deploy", "--no-gates", "--force")
			require.Zero(t, code)
			r.requireUploaded()
		})
	}
}

// The same while an editor is open; and a k3splan that lives keeps what it needs.
func TestACrashedEditIsTidiedUp(t *testing.T) {
	r := newRack(t, plan.SecretAge)
	require.NoError(t, os.WriteFile(filepath.Join(r.home, "bin", "editor"), []byte("#!/bin/sh\ncp \"$1\" \"$1.swp\"\necho $PPID > \"$WITNESS/pid\"\nsleep 1000\n"), 0o755))
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "exec "+run.Word(filepath.Join(r.home, "bin", "editor")))
	command := exec.Command("k3splan", "-p", r.dir, "secrets", "edit", "passwd")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL); _ = command.Wait() })
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(filepath.Join(r.witness, "pid"))
		return err == nil && bytes.HasSuffix(content, []byte("\n"))
	}, 10*time.Second, time.Millisecond)
	require.NotEmpty(t, r.found(), "the control")
	_, code := r.run("", "secrets", "list")
	require.Zero(t, code)
	require.NotEmpty(t, r.found(), "another k3splan does not remove what is in use")

	require.NoError(t, command.Process.Kill())
	_ = command.Wait()
	_, code = r.run("", "secrets", "list")
	require.Zero(t, code)
	require.Empty(t, r.found())
	require.Empty(t, r.leftOver())
}

// Killed at any moment of a move, no secret is lost, and the next move completes it.
func TestACrashedMoveLosesNothing(t *testing.T) {
	real, err := exec.LookPath("pass")
	if err != nil {
		t.Skip("SKIP: pass is not on PATH (Debian: pass)")
	}
	for _, n := range []int{1, 2, 5, 8} { // of 8 secrets, each is stored and read back
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := newRack(t, plan.SecretFiles)
			secretstest.Pass(t)
			// the n-th call of pass is k3splan's last
			script := `#!/bin/sh
echo x >> "$WITNESS/calls"
[ "$(wc -l < "$WITNESS/calls")" = ` + fmt.Sprint(n) + ` ] || exec ` + real + ` "$@"
kill -KILL $PPID
` + real + ` "$@" > /dev/null 2>&1
echo > "$WITNESS/ended"
`
			require.NoError(t, os.WriteFile(filepath.Join(r.home, "bin", "pass"), []byte(script), 0o755))
			_, code := r.run("", "secrets", "move", "--to", "pass", "--prefix", "k3splan/rack")
			require.Equal(t, -1, code)
			require.Eventually(t, func() bool { // the last pass may still be at work
				_, err := os.Stat(filepath.Join(r.witness, "ended"))
				return err == nil
			}, 10*time.Second, time.Millisecond)
			vault, err := secrets.OpenVault(r.dir, plan.SecretStore{}, nil)
			require.NoError(t, err)
			for name, want := range r.secrets {
				content, err := vault.Read(name)
				require.NoError(t, err, "before all is moved, nothing is removed")
				require.Equal(t, want, string(content))
			}
			_, code = r.run("", "validate", "--strict")
			require.Zero(t, code)
			out, code := r.run("", "secrets", "move", "--to", "pass", "--prefix", "k3splan/rack")
			require.Zero(t, code, out)
			for name, want := range r.secrets {
				require.Equal(t, want, secretstest.Run(t, "", real, "show", "k3splan/rack/"+name))
				require.NoFileExists(t, filepath.Join(r.dir, "secrets", name))
			}
		})
	}
}
