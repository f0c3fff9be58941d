package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"k3splan/internal/text"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages of all commands into a folder",
		Long: `Writes k3splan.1 and a page for each command (k3splan-validate.1 …) into DIR, which is created if it
is missing. man finds pages in a folder man1 below those that manpath shows.`,
		Example: "  k3splan man man1 && man ./man1/k3splan-add-host.1\n  k3splan man ~/.local/share/man/man1",
		Args:    usageArgs(cobra.ExactArgs(1)),

		ValidArgsFunction: onlyFolders,
		RunE: func(command *cobra.Command, args []string) error {
			dir := args[0]
			if dir == "" { // an unset variable of a script
				return usageError(errors.New("DIR is empty"))
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("writing the man pages: %w", err)
			}
			date := buildTime().Format(time.DateOnly)
			written := 0
			for _, c := range withChildren(command.Root()) {
				if err := os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(manPage(c, date)), 0o644); err != nil {
					return fmt.Errorf("writing the man pages: %w", err)
				}
				written++
			}
			a.say("wrote %s into %s", text.Count(written, "page"), dir)
			return nil
		},
	}
}

// buildTime returns the time of the program's commit, so that the pages of one program are always the same.
func buildTime() time.Time {
	t, err := time.Parse(time.RFC3339, buildSetting("vcs.time"))
	if err != nil {
		t = time.Unix(0, 0)
	}
	return t.UTC()
}

// withChildren returns a command and all commands below it.
func withChildren(command *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{command}
	for _, child := range command.Commands() {
		all = append(all, withChildren(child)...)
	}
	return all
}

func pageName(command *cobra.Command) string {
	return strings.ReplaceAll(command.CommandPath(), " ", "-")
}

// Sections that do not come from the commands.
var (
	exitStatus = [][2]string{
		{"0", "done"},
		{"1", "the operation failed"},
		{"2", "wrong usage or an invalid plan: nothing was changed"},
	}
	environment = [][2]string{
		{"NO_COLOR", "print without colours"},
		{"COLUMNS", "the width of tables; default: the width of the terminal"},
		{"VISUAL, EDITOR", "the editor of `secrets edit`"},
		{"K3SPLAN_IDENTITY", "files with private keys for secrets kept by age, separated by colons"},
		{"KUBECONFIG", "where `kubeconfig --merge` writes; default: ~/.kube/config"},
		{"XDG_RUNTIME_DIR", "where decrypted secrets are kept while they are needed"},
		{"http_proxy, https_proxy, no_proxy", "are passed to git and Nix"},
	}
	projectFiles = [][2]string{
		{"plans/hosts.csv, plans/k3s.csv, plans/network.yaml", "the tables; or, in place of all three, plans/cluster.xlsx"},
		{"plans/lock.json", "the exact nixpkgs and disko; only `update` changes it"},
		{"plans/known_hosts", "the hosts' public ssh keys; `known-hosts` changes it"},
		{"nixConfigs/HOST.nix, @TAG.nix, all.nix, SERVER.nix", "your NixOS configuration for a host, a tag, all hosts, a server's container"},
		{"partitioning/HOST.nix, hardware/HOST.nix", "a disko layout; the hardware configuration"},
		{"manifests/", "Kubernetes objects that k3s deploys"},
		{"k3s/server.yaml, k3s/agent.yaml", "additional options of k3s"},
		{"secrets/", "tokens, password hashes, ssh keys; not in git"},
		{"generated/", "the rendered hive; not in git"},
		{".k3splan/", "Colmena's output, and what ssh needs; not in git"},
	}
)

// manPage returns the page of a command in the macros of man(7). It is written by hand because cobra/doc
// (1.10) and its go-md2man lose <text in angle brackets>, fill tables, leave out the names of flags' values,
// and use tabs that mandoc -Tlint warns about.
func manPage(command *cobra.Command, date string) string {
	var p strings.Builder
	section := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&p, ".SH %s\n%s", title, text)
		}
	}
	fmt.Fprintf(&p, ".TH %s 1 %s \"k3splan\" \"k3splan\"\n", roffWords(strings.ToUpper(pageName(command))), date)
	section("NAME", paragraph(pageName(command)+" - "+command.Short))
	section("SYNOPSIS", synopsis(command))
	section("DESCRIPTION", roffText(cmp.Or(command.Long, command.Short)))
	section("COMMANDS", subcommands(command))
	command.InitDefaultHelpFlag()
	command.InitDefaultVersionFlag()
	section("OPTIONS", roffList(flagRows(command.LocalFlags()), bold))
	section("GLOBAL OPTIONS", roffList(flagRows(command.InheritedFlags()), bold))
	if !strings.Contains(strings.ToLower(command.Long), "exit code") { // the command has its own
		section("EXIT STATUS", roffList(exitStatus, bold))
	}
	if !command.HasParent() {
		section("ENVIRONMENT", roffList(environment, bold))
		section("FILES", "In the folder of a project:\n"+roffList(projectFiles, italic))
	}
	section("EXAMPLES", roffText(command.Example))
	section("SEE ALSO", strings.Join(seeAlso(command), ",\n")+"\n")
	return p.String()
}

// synopsis returns how a command is called.
func synopsis(command *cobra.Command) string {
	_, arguments, _ := strings.Cut(command.Use, " ")
	forms := []string{strings.TrimSpace(arguments + " [flags]")}
	if command.HasSubCommands() {
		forms = append(forms, "COMMAND")
	}
	if command.Annotations[onlyGroup] != "" {
		forms = forms[1:]
	}
	for i, form := range forms {
		forms[i] = bold(command.CommandPath()) + " " + roffWords(form) + "\n"
	}
	return strings.Join(forms, ".br\n")
}

// subcommands lists the commands below a command, in their groups.
func subcommands(command *cobra.Command) string {
	var p strings.Builder
	group := ""
	for _, child := range command.Commands() {
		if child.GroupID != group {
			group = child.GroupID
			fmt.Fprintf(&p, ".SS %s\n", roffWords(group))
		}
		fmt.Fprintf(&p, ".TP\n%s(1)\n%s", bold(pageName(child)), paragraph(child.Short))
	}
	return p.String()
}

// seeAlso returns the pages of the command above and of those in the same group.
func seeAlso(command *cobra.Command) []string {
	parent := command.Parent()
	if parent == nil {
		return []string{bold("colmena") + "(1)", bold("nix-build") + "(1)", bold("ssh_config") + "(5)"}
	}
	related := []string{bold(pageName(parent)) + "(1)"}
	for _, sibling := range parent.Commands() {
		if sibling != command && sibling.GroupID == command.GroupID {
			related = append(related, bold(pageName(sibling))+"(1)")
		}
	}
	return related
}

// roffList formats terms and their meanings.
func roffList(rows [][2]string, style func(string) string) string {
	var p strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&p, ".TP\n%s\n%s", style(row[0]), paragraph(row[1]))
	}
	return p.String()
}

func bold(text string) string   { return `\fB` + roffWords(text) + `\fP` }
func italic(text string) string { return `\fI` + roffWords(text) + `\fP` }

// flagRows returns flags with their usage.
func flagRows(flags *pflag.FlagSet) (rows [][2]string) {
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(flag)
		name := "--" + flag.Name
		if flag.Shorthand != "" {
			name = "-" + flag.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		if byDefault := flag.DefValue; !slices.Contains([]string{"", "false", "[]", "0"}, byDefault) {
			usage += " (default " + byDefault + ")"
		}
		rows = append(rows, [2]string{name, usage})
	})
	return rows
}

// roffText formats a help text.
func roffText(text string) string {
	var out strings.Builder
	for _, b := range blocksOf(text) {
		switch {
		case len(b.lines) == 0:
			out.WriteString(".PP\n")
		case b.fixed:
			out.WriteString(".RS 2\n.EX\n")
			for _, line := range b.lines {
				out.WriteString(lineStart(roffWords(line[2:])) + "\n")
			}
			out.WriteString(".EE\n.RE\n")
		default:
			out.WriteString(paragraph(strings.Join(b.lines, " ")))
		}
	}
	return out.String()
}

// paragraph formats a text that is filled, in short lines.
func paragraph(words string) string {
	lines := text.Wrap(roffWords(words), 72)
	for i := range lines {
		lines[i] = lineStart(lines[i])
	}
	return strings.Join(lines, "\n") + "\n"
}

// lineStart protects a line that begins with a dot, which would be a command.
func lineStart(text string) string {
	if strings.HasPrefix(text, ".") {
		return `\&` + text
	}
	return text
}

var (
	roffSpecial = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "~", `\(ti`, "^", `\(ha`)
	codeSpan    = regexp.MustCompile("`([^`]*)`")
)

// roffWords escapes a text; text in backquotes becomes bold.
func roffWords(text string) string {
	return codeSpan.ReplaceAllString(roffSpecial.Replace(text), `\fB$1\fP`)
}
