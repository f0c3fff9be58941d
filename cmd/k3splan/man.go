package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages of all commands into a folder",
		Long: `Writes k3splan.1 and a page for each command (k3splan-validate.1 …) into DIR, which is made if need
be. man finds them in a folder man1 below one of its own (manpath shows those).`,
		Example: "  k3splan man man1 && man ./man1/k3splan-add-host.1\n  k3splan man ~/.local/share/man/man1",
		Args:    usageArgs(cobra.ExactArgs(1)),

		ValidArgsFunction: onlyFolders,
		RunE: func(command *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			date := buildTime().Format(time.DateOnly)
			written := 0
			for _, c := range withChildren(command.Root()) {
				if err := os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(manPage(c, date)), 0o644); err != nil {
					return fmt.Errorf("write the man pages: %w", err)
				}
				written++
			}
			a.say("wrote %s into %s", count(written, "page"), dir)
			return nil
		},
	}
}

// buildTime is when the program's commit was made: the pages of one program are the same every day.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key != "vcs.time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Unix(0, 0).UTC()
}

// withChildren are a command and all below it.
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

// What no command can tell of itself, for the page of k3splan.
var (
	exitStatus = [][2]string{
		{"0", "all is done"},
		{"1", "the operation failed"},
		{"2", "wrong usage or an invalid plan: nothing was changed"},
	}
	environment = [][2]string{
		{"NO_COLOR", "print without colours"},
		{"COLUMNS", "the width of tables; without it that of the terminal"},
		{"VISUAL, EDITOR", "the editor of `secrets edit`"},
		{"K3SPLAN_IDENTITY", "files with private keys for secrets that age keeps, separated by colons"},
		{"KUBECONFIG", "where `kubeconfig --merge` writes; without it ~/.kube/config"},
		{"XDG_RUNTIME_DIR", "where secrets are while they are decrypted"},
		{"http_proxy, https_proxy, no_proxy", "are handed to git and Nix"},
	}
	projectFiles = [][2]string{
		{"plans/hosts.csv, plans/k3s.csv, plans/network.yaml", "the tables; or, in place of all three, plans/cluster.xlsx"},
		{"plans/lock.json", "the exact nixpkgs and disko; only `update` changes it"},
		{"plans/known_hosts", "the hosts' public ssh keys; `known-hosts` changes it"},
		{"nixConfigs/HOST.nix, @TAG.nix, all.nix, SERVER.nix", "your NixOS configuration for a host, a tag, all hosts, a server's container"},
		{"partitioning/HOST.nix, hardware/HOST.nix", "a disko layout; the hardware configuration"},
		{"manifests/", "what k3s deploys"},
		{"k3s/server.yaml, k3s/agent.yaml", "more of k3s's own options"},
		{"secrets/", "tokens, password hashes, ssh keys; not in git"},
		{"generated/", "what was rendered; not in git"},
		{".k3splan/", "Colmena's output, and what ssh needs; not in git"},
	}
)

// manPage gives the page of a command in the macros of man(7).
func manPage(command *cobra.Command, date string) string {
	var p strings.Builder
	section := func(title string) { fmt.Fprintf(&p, ".SH %s\n", title) }
	list := func(title string, rows [][2]string) {
		section(title)
		for _, row := range rows {
			fmt.Fprintf(&p, ".TP\n\\fB%s\\fP\n%s", roffWords(row[0]), paragraph(row[1]))
		}
	}
	fmt.Fprintf(&p, ".TH %s 1 %s \"k3splan\" \"k3splan\"\n", roffWords(strings.ToUpper(pageName(command))), date)
	section("NAME")
	p.WriteString(paragraph(pageName(command) + " - " + command.Short))
	section("SYNOPSIS")
	_, arguments, _ := strings.Cut(command.Use, " ")
	forms := []string{strings.TrimSpace(arguments + " [flags]")}
	if command.HasSubCommands() {
		forms = append(forms, "COMMAND")
	}
	if command.Annotations[onlyGroup] != "" {
		forms = forms[1:]
	}
	for i, form := range forms {
		forms[i] = fmt.Sprintf("\\fB%s\\fP %s\n", roffWords(command.CommandPath()), roffWords(form))
	}
	p.WriteString(strings.Join(forms, ".br\n"))
	section("DESCRIPTION")
	p.WriteString(roffText(cmp.Or(command.Long, command.Short)))
	if children := command.Commands(); len(children) > 0 {
		section("COMMANDS")
		group := ""
		for _, child := range children {
			if child.GroupID != group {
				group = child.GroupID
				fmt.Fprintf(&p, ".SS %s\n", roffWords(group))
			}
			fmt.Fprintf(&p, ".TP\n\\fB%s\\fP(1)\n%s", roffWords(pageName(child)), paragraph(child.Short))
		}
	}
	command.InitDefaultHelpFlag()
	command.InitDefaultVersionFlag()
	if rows := flagRows(command.LocalFlags()); len(rows) > 0 {
		list("OPTIONS", rows)
	}
	if rows := flagRows(command.InheritedFlags()); len(rows) > 0 {
		list("GLOBAL OPTIONS", rows)
	}
	if !strings.Contains(strings.ToLower(command.Long), "exit code") { // else it has others
		list("EXIT STATUS", exitStatus)
	}
	if !command.HasParent() {
		list("ENVIRONMENT", environment)
		section("FILES")
		p.WriteString("Of a project, in its folder:\n")
		for _, row := range projectFiles {
			fmt.Fprintf(&p, ".TP\n\\fI%s\\fP\n%s", roffWords(row[0]), paragraph(row[1]))
		}
	}
	section("EXAMPLES")
	p.WriteString(roffText(command.Example))
	section("SEE ALSO")
	var related []string
	if parent := command.Parent(); parent != nil {
		related = append(related, pageName(parent))
		for _, sibling := range parent.Commands() {
			if sibling != command && sibling.GroupID == command.GroupID {
				related = append(related, pageName(sibling))
			}
		}
	}
	for i, page := range related {
		related[i] = fmt.Sprintf(`\fB%s\fP(1)`, roffWords(page))
	}
	if !command.HasParent() {
		related = []string{`\fBcolmena\fP(1)`, `\fBnix\-build\fP(1)`, `\fBssh_config\fP(5)`}
	}
	p.WriteString(strings.Join(related, ",\n") + "\n")
	return p.String()
}

// flagRows are flags with their usage.
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

// roffText sets a help text.
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

// paragraph sets a text to fill, in lines that are not long.
func paragraph(text string) string {
	lines := wrap(roffWords(text), 72)
	for i := range lines {
		lines[i] = lineStart(lines[i])
	}
	return strings.Join(lines, "\n") + "\n"
}

// lineStart: a line that begins with a dot would be a command.
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

// roffWords escapes a text; what stands in backquotes becomes bold.
func roffWords(text string) string {
	return codeSpan.ReplaceAllString(roffSpecial.Replace(text), `\fB$1\fP`)
}
