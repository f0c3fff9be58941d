package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"k3splan/internal/secrets/secretstest"
)

// evil is what a terminal would obey or hide: an escape sequence, a C1 control, a bidirectional override, a
// zero-width space and a byte that is not UTF-8. In names of files the line break is added.
const evil = "\x1b]0;evil\x07\x1b[31m\u009b2J\u202e\u200b\xff"

// unprintable returns the first thing in an output that must not reach a terminal, with what is around it.
func unprintable(output []byte) string {
	for i := 0; i < len(output); {
		r, size := utf8.DecodeRune(output[i:])
		if r == utf8.RuneError && size == 1 || r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return fmt.Sprintf("%q", output[max(0, i-120):min(len(output), i+60)])
		}
		i += size
	}
	return ""
}

// answer is what hosts answer to every question, with evil in each place that is shown.
const answer = "1.2 " + evil + "\nsystem /nix/store/x-" + evil + "\nprofile /nix/store/x-" + evil + "\nnixos 24.11" + evil + "\nfailed a" + evil + ".service\netcd olaf-k3s-server\n" +
	"readyz no" + evil + "\nversion v1" + evil + "\nmember 1, started, x" + evil + "-1a2b3c4d, x\nk3splan-lease held 12 eve" + evil + "\n" +
	"runs /nix/store/x-" + evil + "\nbooted /nix/store/y" + evil + "\nprofile 3\ndeployed /nix/store/x-" + evil + "\ngeneration 3 1796083200 /nix/store/x-" + evil + "\nnixos 26" + evil +
	"\nkernel /nix/store/k" + evil + "\nboot D-Bus" + evil + "\nserver olaf" + evil + " 1.31" + evil + " -\nagent a" + evil + " 1" + evil + "\ngeneration 2 1796083100 /nix/store/z" + evil + "\nend\n" +
	"receipt\n{\"version\": \"" + evil + "\"}\n"

// evilPrograms are programs and hosts that print evil, fail with it, or do both forever.
func evilPrograms(t *testing.T, exit int) {
	t.Helper()
	bin := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%b' '%s'\nprintf '%%b' '%s' >&2\nexit %d\n", octal(answer), octal("said "+evil+"\n"), exit)
	for _, program := range []string{"ssh", "colmena", "nix-build", "nix-instantiate", "nix-prefetch-url", "nix-store", "nix", "git", "lsblk", "age", "pass", "gpg"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, program), []byte(script), 0o755))
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// octal writes a text for printf %b.
func octal(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, `\0%03o`, c)
	}
	return b.String()
}

// commandsToWalk are all commands without subcommands.
func commandsToWalk(command *cobra.Command) (paths [][]string) {
	for _, sub := range command.Commands() {
		if sub.HasSubCommands() {
			for _, path := range commandsToWalk(sub) {
				paths = append(paths, append([]string{sub.Name()}, path...))
			}
			if !sub.Runnable() {
				continue
			}
		}
		paths = append(paths, []string{sub.Name()})
	}
	return paths
}

// walk runs every command in a project and looks at what it prints.
func walk(t *testing.T, dir string, hosts ...string) {
	t.Helper()
	arguments := map[string][][]string{
		"setup": {{filepath.Join(t.TempDir(), "new"+evil)}}, "show host": {hosts}, "diff": {{}, {"HEAD" + evil}}, "add host": {{"--ip", evil, "--admin", "x", "new" + evil}},
		"remove": {{hosts[0]}, {evil}}, "rename": {{hosts[0], "b" + evil}}, "deploy": {{"--yes", "--force", "--gate-timeout", "200ms", "--gate-pause", "10ms"}, {"--dry-run", "--as", "root", hosts[0]}, {"@" + evil}},
		"boot-stick": {{"--list"}, {hosts[0]}, {hosts[0], "/dev/" + evil}, {"--image", evil, "/dev/null"}}, "hardware": {{hosts[0]}}, "ssh-config": {{}},
		"known-hosts scan": {{"--yes", hosts[0]}}, "known-hosts forget": {{hosts[0], evil}}, "known-hosts make": {{"--renew", hosts[0]}},
		"secrets show": {{evil}, {"passwd"}}, "secrets edit": {{evil}}, "secrets move": {{"files"}}, "token rotate": {{"--yes", "--restart"}},
		"kubeconfig": {{}, {"-o", filepath.Join(dir, "plans", "hosts.csv")}}, "man": {{evil}}, "help": {{evil}}, "completion": {{}},
		"render": {{"--diff"}, {}}, "show": {{}, {"--format", evil}}, "passwd": {{hosts[0]}}, "validate": {{}}, "status": {{}, {"*" + evil}},
		"generations": {{hosts[0]}}, "rollback": {{hosts[0], "--yes", "--gate-timeout", "200ms", "--gate-pause", "10ms"}, {hosts[0], "--dry-run", "--to", evil}, {"*", "--dry-run"}},
		"upgrade": {{"--dry-run"}, {"--yes", "--gate-timeout", "200ms", "--gate-pause", "10ms"}, {"--to", evil}, {"--k3s", evil}}, "rehearse": {{}, {hosts[0], "--from", "HEAD" + evil}},
		"etcd snapshot": {{}, {"--to", filepath.Join(t.TempDir(), evil)}, {"--server", evil}}, "etcd restore": {{evil}, {"--yes", filepath.Join(dir, "plans", "hosts.csv")}},
		"decommission": {{hosts[0], "--yes"}, {evil}}, "replace": {{hosts[0], "--serial", evil, "--yes"}, {evil}}, "convert": {{"csv"}, {evil}},
	}
	skipped := map[string]bool{
		"ssh":   true, // the session is the host's
		"build": true, // Colmena has the terminal itself
	}
	run := func(args []string) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, "k3splan", args...)
		command.Dir = dir
		start := time.Now()
		output, _ := command.CombinedOutput() // most of them fail
		require.NoError(t, ctx.Err(), "%q does not end", args)
		require.NotEqual(t, 127, command.ProcessState.ExitCode())
		if found := unprintable(output); found != "" {
			t.Errorf("k3splan %q reaches the terminal with %s", args, found)
		}
		if os.Getenv("WALK_LOG") != "" {
			t.Logf("%q: exit %d after %s\n%s", args, command.ProcessState.ExitCode(), time.Since(start), output)
		}
		if bytes.Contains(output, []byte("panic:")) {
			t.Errorf("k3splan %q: %s", args, output)
		}
	}
	root := (&app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}).root()
	for _, path := range commandsToWalk(root) {
		name := strings.Join(path, " ")
		if skipped[name] {
			continue
		}
		found, _, err := root.Find(path)
		require.NoError(t, err)
		variants := arguments[name]
		if variants == nil {
			variants = [][]string{{}}
		}
		for _, args := range variants {
			run(append(append([]string{}, path...), args...))
			if found.Flags().Lookup("json") != nil && name != "configuration" {
				run(append(append(append([]string{}, path...), "--json"), args...))
			}
		}
	}
	run([]string{"-p", evil, "validate"})
	run([]string{evil})
	run([]string{"validate", "--" + evil})
}

// evilProject is a valid project with evil wherever a valid one can have it: in the names of files, in
// cells, and in the texts of files.
func evilProject(t *testing.T) string {
	t.Helper()
	secretstest.Home(t)
	dir := filepath.Join(t.TempDir(), "rack"+evil+"\n")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/rack")))
	setup := exec.Command("k3splan", "setup", dir)
	out, err := setup.CombinedOutput()
	require.NoError(t, err, "%s", out)
	name := strings.TrimSuffix(evil, "\xff") // else the project has errors
	for name, content := range map[string]string{
		"secrets/all.pub": testKey, "secrets/passwd": testHash, "secrets/a" + evil + "passwd": "x\n", "secrets/b" + evil + ".pub": "ssh-ed25519 " + evil + "\n",
		"manifests/ok.x" + name + ".yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "nixConfigs/x" + name + ".nix": "{ }\n",
		"nixConfigs/olaf.nix": "{ }\n", "partitioning/x" + name + ".nix": "{ }\n", "hardware/x" + name + ".nix": "{ }\n",
		"generated/x" + name: "x", "plans/x" + evil + ".csv": "x", ".k3splan/lock": "process " + evil,
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	}
	return dir
}

// Whatever hosts answer, programs print, and files are called: no command passes it on to the terminal.
func TestNothingFromOutsideReachesTheTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: runs every command")
	}
	t.Run("hosts and programs that succeed", func(t *testing.T) {
		dir := evilProject(t)
		makeKnown(t, dir)
		evilPrograms(t, 0)
		walk(t, dir, "olaf")
	})
	t.Run("hosts and programs that fail", func(t *testing.T) {
		dir := evilProject(t)
		makeKnown(t, dir)
		evilPrograms(t, 1)
		walk(t, dir, "olaf")
	})
	for name, content := range map[string]string{
		"plans/network.yaml":  "\"\\e[31mk\\u009B\\u202E\": 1\n\"gate" + `\e[31m` + "way\": \"\\e\"\ndomain: \"\\e[31m\"\nnetmask: 24\n",
		"plans/lock.json":     "{\"nixpkgs\\u001b[31m\": 1, \"disko\\u009b\": {\"x\\u202e\": \"\\u001b\"}}",
		"plans/hosts.csv":     "name,interface,ip,admin,o" + evil + "\nolaf" + evil + ",eno1" + evil + ",10.0.100.2" + evil + ",x" + evil + "," + evil + "\nnocells" + evil + "\n",
		"plans/k3s.csv":       "host,name,type,ip,labels\nolaf" + evil + ",x" + evil + ",init" + evil + ",1.2.3.4" + evil + ",a=b" + evil + "\n",
		"plans/known_hosts":   evil + " ssh-ed25519 AAAA" + evil + "\nolaf" + evil + "\n",
		"k3s/server.yaml":     "\"\\e[31mx\\u202E\": \"\\e\"\n" + "node-label: [\"\\e[2J\"]\n",
		"manifests/bad.yaml":  "kind: \"\\e[31m\"\napiVersion: \"\\u009B\"\nmetadata: {name: \"\\u202E\"}\n---\n\x1b[31m: [\n",
		"nixConfigs/olaf.nix": "{ x = builtins.readFile (./. + \"/" + evil + "\");\n" + evil,
		"secrets/passwd":      "$6$" + evil + "\n",
		"secrets/all.pub":     "ssh-ed25519 AAAA" + evil + "\n" + evil + "\n",
		"secrets/init-token":  "K10" + evil + "::server:" + evil + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := evilProject(t)
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
			evilPrograms(t, 255) // no host is reached
			for _, args := range [][]string{{"validate"}, {"validate", "--json"}, {"show"}, {"show", "host", "olaf"}, {"doctor"}, {"render", "--diff"}, {"secrets", "audit"},
				{"deploy", "--dry-run"}, {"known-hosts"}, {"rename", "olaf", "x"}} {
				command := exec.Command("k3splan", args...)
				command.Dir = dir
				output, _ := command.CombinedOutput()
				if found := unprintable(output); found != "" {
					t.Errorf("k3splan %q reaches the terminal with %s", args, found)
				}
			}
		})
	}
}

// makeKnown lets all hosts have known keys.
func makeKnown(t *testing.T, dir string) {
	t.Helper()
	command := exec.Command("k3splan", "known-hosts", "make")
	command.Dir = dir
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Empty(t, unprintable(output))
}
