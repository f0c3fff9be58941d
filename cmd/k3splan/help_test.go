package main

import (
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"k3splan/internal/run"
)

// commands gives all commands, also those that cobra adds.
func commands() []*cobra.Command {
	root := (&app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}).root()
	var all []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		all = append(all, command)
		for _, child := range command.Commands() {
			walk(child)
		}
	}
	walk(root)
	return all
}

// notRun are the commands whose examples cannot run in a test, because they reach other machines
// or the network, or ask at a terminal. Their examples are read as the program reads its
// arguments.
var notRun = map[string]string{
	"deploy": "reaches the hosts", "status": "reaches the hosts", "hardware": "reaches a host", "ssh": "reaches a host",
	"replace": "reaches the hosts", "decommission": "reaches the hosts",
	"rollback": "reaches the hosts", "generations": "reaches a host", "rehearse": "builds virtual machines",
	"kubeconfig": "reaches a server", "update": "asks the public sources",
	"token rotate": "reaches a server", "token adopt": "reaches a server", "token push": "reaches the servers",
	"upgrade":       "reaches the hosts",
	"reboot":        "reaches the hosts",
	"etcd snapshot": "reaches a server", "etcd restore": "reaches the servers",
	"known-hosts scan": "reaches a host", "known-hosts forget": "names a key that nobody has",
	"boot-stick": "builds an image and writes a device", "passwd": "asks at a terminal",
	"secrets edit": "starts an editor", "secrets move": "needs recipients, or pass", "secrets rekey": "needs recipients",
}

// Every command has an example, and every example works.
func TestExamples(t *testing.T) {
	project := exampleProject(t)
	for _, command := range commands() {
		path := strings.TrimPrefix(strings.TrimPrefix(command.CommandPath(), "k3splan"), " ")
		t.Run(path, func(t *testing.T) {
			require.NotEmpty(t, command.Short)
			require.NotEmpty(t, command.Example, "no example")
			var before []string // what prepares the next line
			ran := 0
			for line := range strings.Lines(command.Example) {
				line = strings.TrimSpace(line)
				if !strings.Contains(line, "k3splan ") {
					before = append(before, line)
					continue
				}
				ran++
				script := strings.Join(append(before, line), "\n")
				if reason := whyNotRun(line); reason != "" {
					t.Logf("read, not run: %s: it %s", line, reason)
					requireReadable(t, script)
					continue
				}
				out, err := inShell(t, project, script).CombinedOutput()
				require.NoError(t, err, "%s\n%s", line, out)
			}
			require.NotZero(t, ran)
		})
	}
}

// The pages of one program are the same on every machine, however many processors it has.
func TestManPagesTellNoMachine(t *testing.T) {
	for _, command := range commands() {
		if parallel := command.Flags().Lookup("parallel"); parallel != nil {
			require.Equal(t, "0", parallel.DefValue)
			return
		}
	}
	t.Fatal("no command has --parallel")
}

// Whatever a help says, it fits into the terminal; only examples must stay whole.
func TestHelpFits(t *testing.T) {
	for _, command := range commands() {
		help := exec.Command("k3splan", append([]string{"help"}, strings.Fields(command.CommandPath())[1:]...)...)
		help.Env = append(os.Environ(), "COLUMNS=80")
		out, err := help.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for line := range strings.Lines(strings.ReplaceAll(string(out), command.Example, "")) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, "%s: %s", command.CommandPath(), line)
		}
	}
}

// whyNotRun says what keeps a line from being run here, or "".
func whyNotRun(line string) string {
	words := strings.Fields(line)
	for i, word := range words {
		if word == "k3splan" && i+1 < len(words) && !slices.Contains(words, "--stdin") {
			two := strings.Join(words[i+1:min(i+3, len(words))], " ")
			if reason := cmp.Or(notRun[words[i+1]], notRun[two]); reason != "" {
				return reason
			}
		}
		if slices.Contains([]string{"jq", "git", "man", "cp"}, word) && (i == 0 || strings.Trim(words[i-1], "|&;") == "") {
			if _, err := exec.LookPath(word); err != nil {
				return "needs " + word
			}
		}
	}
	return ""
}

// exampleProject is a copy of the five-host example that lacks nothing, under git.
func exampleProject(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rack")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "examples", "rack"))))
	out, err := inShell(t, dir, "cd "+run.Word(dir)+" && k3splan setup").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "all.pub"), []byte(testKey), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "passwd"), []byte(testHash), 0o600))
	if _, err := exec.LookPath("git"); err == nil {
		out, err := inShell(t, dir, "cd "+run.Word(dir)+" && git init -q && git add . && git -c user.name=t -c user.email=t@example.org commit -qm rack && git tag v1.0 && git update-ref refs/remotes/origin/main HEAD").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	return dir
}

// inShell runs a script in a fresh copy of a project, with stand-ins for programs that would reach
// out: colmena succeeds, pass shows a password.
func inShell(t *testing.T, project, script string) *exec.Cmd {
	t.Helper()
	home := t.TempDir()
	bin := filepath.Join(home, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".ssh"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte("# mine\n"), 0o600))
	// no example leaves the machine
	for program, text := range map[string]string{"colmena": "exit 0", "pass": "echo a long passphrase", "ssh": "exit 0", "scp": "exit 255"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	here := filepath.Join(home, "project")
	if _, err := os.Stat(project); err == nil {
		require.NoError(t, copyTree(project, here))
		require.NoError(t, os.Symlink(project, filepath.Join(home, "rack-of-last-year")))
	}
	command := exec.Command("sh", "-euc", script)
	command.Dir = here
	command.Env = append(os.Environ(), "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "MANPAGER=cat", "NO_COLOR=1")
	return command
}

// copyTree copies files with their modes: secrets stay their owner's.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(name, from))
		if entry.IsDir() {
			return os.MkdirAll(target, info.Mode().Perm()|0o700)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}

// requireReadable: the shell takes the line apart, and every call of k3splan in it has a command,
// flags and arguments that exist.
func requireReadable(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	// in place of the program: one line a call, one argument between each pair of bells
	require.NoError(t, os.WriteFile(filepath.Join(dir, "k3splan"), []byte("#!/bin/sh\nprintf '%s\\007' \"$@\" >> '"+calls+"'\necho >> '"+calls+"'\n"), 0o755))
	for _, program := range []string{"pass", "cd", "kubectl", "jq"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
	command := exec.Command("sh", "-uc", "cd() { :; }\n"+script)
	command.Dir = dir
	command.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir}
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(calls)
	require.NoError(t, err)
	for call := range strings.Lines(string(text)) {
		args := strings.Split(strings.TrimSuffix(strings.TrimSuffix(call, "\n"), "\a"), "\a")
		root := (&app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}).root()
		found, rest, err := root.Find(args)
		require.NoError(t, err, "%q", args)
		require.NotEqual(t, root, found, "%q", args)
		require.NoError(t, found.ParseFlags(rest), "%q", args)
		require.NoError(t, found.ValidateArgs(found.Flags().Args()), "%q", args)
	}
}

// The pages are there for every command, the same at every run, and without a date of today.
func TestManPages(t *testing.T) {
	write := func() map[string]string {
		dir := filepath.Join(t.TempDir(), "man1")
		out, err := exec.Command("k3splan", "man", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
		pages := map[string]string{}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, entry := range entries {
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			require.NoError(t, err)
			pages[entry.Name()] = string(text)
		}
		return pages
	}
	pages := write()
	require.Equal(t, pages, write())
	for _, command := range commands() {
		page := pages[strings.ReplaceAll(command.CommandPath(), " ", "-")+".1"]
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "SEE ALSO"} {
			require.Contains(t, page, "\n.SH "+section+"\n", command.CommandPath())
		}
	}
	require.Contains(t, pages["k3splan.1"], "\n.SH FILES\n")
	require.Contains(t, pages["k3splan-status.1"], "exit code is 1 if a host is unhealthy")
	require.NotContains(t, pages["k3splan-status.1"], ".SH EXIT STATUS") // it has others
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("SKIP: mandoc is not on PATH (Debian: mandoc); the pages were not formatted")
	}
	for name, page := range pages {
		lint := exec.Command("mandoc", "-Tlint")
		lint.Stdin = strings.NewReader(page)
		out, err := lint.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.Empty(t, string(out), name)
	}
	format := exec.Command("mandoc", "-Tutf8", "-O", "width=110")
	format.Stdin = strings.NewReader(pages["k3splan-secrets.1"])
	out, err := format.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "\n         age    files secrets/*.age, encrypted to the", "a table keeps its lines")
}

// Each shell completes hosts, tags, containers and values, in its own way.
func TestCompletion(t *testing.T) {
	project := exampleProject(t)
	for _, test := range []struct {
		line string
		want []string
	}{
		{"deploy o", []string{"olaf"}},
		{"deploy @st", []string{"@storage"}},
		{"build karl @k3s-", []string{"@k3s-agent", "@k3s-init", "@k3s-server"}},
		{"deploy olaf,ul", []string{"olaf,ulf", "olaf,ulrich"}},
		{"deploy olaf,ulf,ul", []string{"olaf,ulf,ulrich"}},
		{"deploy ulf ul", []string{"ulrich"}}, // not what is named already
		{"deploy -- o", []string{}},
		{"deploy -p nowhere o", []string{}},
		{"deploy --max-unavailable o", []string{}}, // no files
		{"known-hosts scan ulf ul", []string{"ulrich"}},
		{"boot-stick @st", []string{}},
		{"kubeconfig --server ro", []string{"rolf-k3s-server"}},
		{"ssh -l de", []string{"deploy"}},
		{"secrets edit init", []string{"init-token"}},
		{"add agent r", []string{"rolf"}}, // the one without an agent
		{"remove agent ul", []string{"ulf", "ulf-k3s-agent"}},
		{"remove host ka", []string{"karl"}},
		{"rename ulf-", []string{"ulf-k3s-agent", "ulf-k3s-server"}},
		{"add host x --boot l", []string{"legacy"}},
		{"add host x --interface eno", []string{"eno1"}},
		{"passwd u", []string{"ulf", "ulrich"}},
		{"show host u", []string{"ulf", "ulrich"}},
		{"show --format h", []string{"html"}},
		{"diff --format m", []string{"markdown"}},
		{"diff v1", []string{"v1.0"}},
		{"add host x --ip 10", []string{"10.0.100.7"}},
		{"add agent rolf --ip 10", []string{"10.0.100.26"}},
		{"add agent rolf --label d", []string{"disk=large"}},
	} {
		for shellName, script := range map[string]string{"bash": completeInBash, "fish": completeInFish, "zsh": completeInZsh} {
			t.Run(shellName+" "+test.line, func(t *testing.T) {
				if _, err := exec.LookPath(shellName); err != nil {
					t.Skipf("SKIP: %s is not on PATH (Debian: %[1]s)", shellName)
				}
				if _, err := os.Stat(bashCompletion); shellName == "bash" && err != nil {
					t.Skip("SKIP: bash's completion library is not installed (Debian: bash-completion)")
				}
				file := filepath.Join(t.TempDir(), "complete")
				require.NoError(t, os.WriteFile(file, []byte(script), 0o600))
				run := inShell(t, project, shellName+" "+run.Word(file)+" 'k3splan "+test.line+"'")
				out, err := run.Output()
				require.NoError(t, err)
				got := strings.Fields(string(out))
				slices.Sort(got)
				require.Equal(t, test.want, got)
			})
		}
	}
}

// A workbook is completed as tables are, and doctor finds nothing in it that only tables have.
func TestCompletionOfAWorkbook(t *testing.T) {
	tables, workbook := exampleProject(t), exampleProject(t)
	intoWorkbook(t, workbook)
	for _, line := range []string{"deploy ''", "remove server ''", "kubeconfig --server ''", "add host x --interface ''"} {
		complete := func(project string) string {
			out, err := inShell(t, project, "k3splan __complete "+line).Output()
			require.NoError(t, err)
			return string(out)
		}
		require.Equal(t, complete(tables), complete(workbook), line)
	}
	out, err := inShell(t, workbook, "k3splan doctor || true").Output()
	require.NoError(t, err)
	require.Regexp(t, `(?m)^ok +project +5 hosts +for`, string(out))
}

const bashCompletion = "/usr/share/bash-completion/bash_completion"

// completeInBash does what an interactive bash does with the line: it takes the @ for the end of a
// word, and puts what it gets behind it.
const completeInBash = `
. ` + bashCompletion + `
. <(k3splan completion bash)
COMP_WORDBREAKS=$' \t\n"\'@><=;|&(:'
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9 COMP_WORDS=()
for word in $1; do
	case $word in
	@*) COMP_WORDS+=(@ "${word#@}") ;;
	*) COMP_WORDS+=("$word") ;;
	esac
done
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_k3splan 2>/dev/null
case $1 in
*@*) for word in "${COMPREPLY[@]}"; do printf '@%s\n' "${word%% *}"; done ;;
*) printf '%s\n' "${COMPREPLY[@]%% *}" ;;
esac
`

const completeInFish = `
k3splan completion fish | source
complete -C $argv[1] | string replace -r '\t.*' ''
true
`

// completeInZsh stands in for zsh's own functions: _describe shows what fits to the word.
const completeInZsh = `
compdef() { : }
. <(k3splan completion zsh)
_describe() { for candidate in "${(@P)${@[-1]}}"; do [[ $candidate == "$words[CURRENT]"* ]] && print -r -- "${candidate%%:*}"; done; return 0 }
words=(${(z)1})
CURRENT=$#words
_k3splan
`
