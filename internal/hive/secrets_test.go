package hive_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// encrypted returns the folder of an example whose secrets are encrypted with age, and the plain secrets.
func encrypted(t testing.TB, example string) (dir string, contents map[string]string) {
	t.Helper()
	dir = copyExample(t, example, nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, secrets.RecipientsFile), []byte(secretstest.AgeKey(t)+"\n"), 0o644))
	names := []string{"init-token", "agent-token", "passwd"}
	if example == "rack" {
		names = append(names, "ulfpasswd")
		require.NoError(t, os.WriteFile(filepath.Join(dir, secrets.Dir, "ulfpasswd"), []byte(poisonHash+"\n"), 0o600))
	}
	hostKeys, err := filepath.Glob(filepath.Join(dir, secrets.Dir, secrets.HostKeys, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, hostKeys)
	for _, file := range hostKeys {
		names = append(names, secrets.HostKeys+"/"+filepath.Base(file))
	}
	contents = map[string]string{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, secrets.Dir, name))
		require.NoError(t, err)
		contents[name] = string(content)
	}
	_, err = project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
	require.NoError(t, err)
	return dir, contents
}

func TestSecretsOfAHost(t *testing.T) {
	secretstest.Home(t)
	dir, _ := encrypted(t, "rack")
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, []hive.Secret{
		{Name: "passwd", Entry: "ulfpasswd"}, {Name: "ssh-host-key", Entry: "hosts/ulf_ed25519"},
		{Name: "server-token", Entry: "init-token"}, {Name: "agent-token", Entry: "agent-token"},
	}, hive.Secrets(p, p.Plan.Host("ulf")))
	require.Equal(t, []hive.Secret{{Name: "passwd", Entry: "passwd"}, {Name: "ssh-host-key", Entry: "hosts/ulrich_ed25519"}}, hive.Secrets(p, p.Plan.Host("ulrich")))
}

// With encrypted secrets the tree is the same wherever the project lies and whoever renders it, it
// holds no secret, and evaluates.
func TestEncryptedSecretsRender(t *testing.T) {
	secretstest.Home(t)
	dir, contents := encrypted(t, "rack")
	tree := render(t, dir)
	for _, file := range tree.Paths() {
		require.NotContains(t, string(tree[file]), dir, file)
		for name, content := range contents {
			require.NotContains(t, string(tree[file]), strings.TrimSpace(content), "%s in %s", name, file)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "else where")
	require.NoError(t, os.CopyFS(elsewhere, os.DirFS(dir)))
	require.Equal(t, tree, render(t, elsewhere), "it can be moved")

	// without the key: a warning, and the same tree
	require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors())
	require.Len(t, problems, 1)
	again, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	require.Equal(t, tree, again)

	_, err = tree.Write(elsewhere)
	require.NoError(t, err)
	file := filepath.Join(elsewhere, hive.Dir, "hive.nix")
	out, code := evalHive(t, "--check", file)
	require.Zero(t, code, out)
	require.Empty(t, out)
}

// No secret that is kept encrypted gets into the store, in plain text or encrypted.
func TestNoEncryptedSecretLeaks(t *testing.T) {
	secretstest.Home(t)
	dir, contents := encrypted(t, "single")
	_, err := render(t, dir).Write(dir)
	require.NoError(t, err)
	var searched []string
	for name, content := range contents {
		plain := filepath.Join(t.TempDir(), "plain")
		if lines := strings.Split(content, "\n"); len(lines) > 5 {
			content = strings.Join(lines[2:5], "\n") + "\n" // of a private key, what differs from key to key
		}
		require.NoError(t, os.WriteFile(plain, []byte(content), 0o600))
		searched = append(searched, plain, filepath.Join(dir, secrets.Dir, name+".age"))
	}
	scan := func() (string, int) {
		return scanSecrets(t, filepath.Join(dir, hive.Dir, "hive.nix"), searched...)
	}
	out, code := scan()
	require.Zero(t, code, out)

	// the control: a snippet that copies an encrypted file into the store is found
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nixConfigs", "olaf.nix"),
		[]byte(`{ environment.etc.token.source = "${../secrets/init-token.age}"; }`), 0o600))
	_, code = scan()
	require.Equal(t, 1, code, "the search can find")
}

// What Colmena will run for a key prints the very secret: the real program, found by K3SPLAN or on
// PATH, in a project whose path has blanks and quotes.
func TestKeyCommandsPrintTheSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: builds the program")
	}
	program := filepath.Join(t.TempDir(), "bin", "k3splan")
	out, err := exec.Command("go", "build", "-o", program, "k3splan/cmd/k3splan").CombinedOutput()
	require.NoError(t, err, "%s", out)
	secretstest.Home(t)
	dir, contents := encrypted(t, "rack")
	_, err = render(t, dir).Write(dir)
	require.NoError(t, err)
	keys := evaluate(t, "lib.mapAttrs (_: n: lib.mapAttrs (_: k: { inherit (k) keyCommand keyFile text; }) n.config.deployment.keys) nodes",
		filepath.Join(dir, hive.Dir, "hive.nix")).(map[string]any)

	ran := map[string]bool{}
	for host, of := range keys {
		for key, source := range of.(map[string]any) {
			source := source.(map[string]any)
			require.Nil(t, source["keyFile"])
			require.Nil(t, source["text"])
			var words []string
			for _, word := range source["keyCommand"].([]any) {
				words = append(words, word.(string))
			}
			name := words[len(words)-1]
			for _, env := range []string{"K3SPLAN=" + program, "PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH")} {
				command := exec.Command(words[0], words[1:]...)
				command.Env = append(os.Environ(), env)
				command.Dir = "/"
				out, err := command.Output()
				require.NoError(t, err)
				require.Equal(t, contents[name], string(out), "%s of %s", key, host)
			}
			ran[host+" "+key+" "+name] = true
		}
	}
	for _, want := range []string{
		"olaf k3splan-passwd passwd", "olaf k3splan-server-passwd passwd", "olaf k3splan-server-token init-token", "olaf k3splan-server-agent-token agent-token",
		"olaf k3splan-agent-token agent-token", "ulf k3splan-passwd ulfpasswd", "ulf k3splan-server-passwd ulfpasswd", "ulrich k3splan-passwd passwd",
	} {
		require.True(t, ran[want], "%s: %v", want, ran)
	}
}

// What we make of a password is what NixOS takes as hashedPassword: it warns about others. (The NixOS
// of the harness is older than yescrypt; that kind is compared with crypt(3) in package secrets.)
func TestHashesAreTakenByNixOS(t *testing.T) {
	made, err := secrets.HashPassword([]byte("correct horse"))
	require.NoError(t, err)
	check := func(hash string) (string, int) {
		return evalHive(t, "--check", rendered(t, "single", map[string]string{
			"nixConfigs/olaf.nix": "{ users.users.tester = { isNormalUser = true; hashedPassword = " + hive.NixString(hash) + "; }; }",
		}))
	}
	for _, hash := range []string{made, poisonHash} {
		require.Empty(t, secrets.CheckHash([]byte(hash)))
		out, code := check(hash)
		require.Zero(t, code, out)
		require.Empty(t, out)
	}
	// the controls, among them ancestor-defect 10: a line break inside the Nix string
	for _, wrong := range []string{"correct horse", made + "\n"} {
		out, _ := check(wrong)
		require.Contains(t, out, "tester", "NixOS says nothing about %q", wrong)
	}
}
