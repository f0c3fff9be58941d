package main

// Wrong usage is answered with what the user may have meant.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/text"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError makes err an error of wrong usage: nothing was done. Its hint is kept.
func usageError(err error) error { return &exitError{code: exitInvalid, err: err} }

// usageArgs makes the errors of a check of positional arguments usage errors that name the arguments as
// the command's usage line does.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if check(command, args) == nil {
			return nil
		}
		needed := neededArgs(command)
		switch missing := needed[min(len(args), len(needed)):]; len(missing) {
		case 0:
		case 1:
			return &exitError{code: exitInvalid, err: fmt.Errorf("%s is missing", missing[0]), hint: form(command)}
		default:
			return &exitError{code: exitInvalid, err: fmt.Errorf("%s are missing", strings.Join(missing, " and ")), hint: form(command)}
		}
		first := len(args) - 1 // of those that are too many
		for first > 0 && check(command, args[:first]) != nil {
			first--
		}
		if command.HasAvailableSubCommands() {
			return unknownCommand(command, args[first])
		}
		wrong := &exitError{code: exitInvalid, err: fmt.Errorf("unexpected argument %q", args[first]), hint: diag.DidYouMean(args[first], command.ValidArgs)}
		if wrong.hint == "" && len(command.ValidArgs) > 0 && first == 0 {
			wrong.hint = "one of: " + strings.Join(command.ValidArgs, " ")
		}
		return wrong
	}
}

// renameArgs checks the arguments of rename, and helps those who call it like add and remove.
func renameArgs(command *cobra.Command, args []string) error {
	if len(args) == 3 && slices.Contains([]string{"host", "server", "agent"}, args[0]) {
		return &exitError{code: exitInvalid, err: fmt.Errorf("unexpected argument %q: a name says which it is", args[0]),
			hint: fmt.Sprintf("%s %s %s", command.CommandPath(), args[1], args[2])}
	}
	return usageArgs(cobra.ExactArgs(2))(command, args)
}

// neededArgs returns the names of the arguments that a command requires.
func neededArgs(command *cobra.Command) []string {
	var needed []string
	for _, word := range strings.Fields(command.Use)[1:] {
		if strings.HasPrefix(word, "[") || strings.HasPrefix(word, "-") {
			break
		}
		needed = append(needed, strings.TrimSuffix(word, "…"))
	}
	return needed
}

// form returns how a command is called.
func form(command *cobra.Command) string {
	return strings.TrimSuffix(command.CommandPath(), command.Name()) + command.Use
}

// onlyGroup marks commands that only hold others.
const onlyGroup = "group"

// groupOf makes a command one that only holds others: by itself it shows its help.
func groupOf(command *cobra.Command, children ...*cobra.Command) *cobra.Command {
	command.Args = usageArgs(cobra.NoArgs)
	command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
	command.Annotations = map[string]string{onlyGroup: "yes"}
	command.AddCommand(children...)
	return command
}

// otherNames are the names of commands in other programs.
var otherNames = map[string][]string{
	"k3splan setup":         {"init", "new", "create"},
	"k3splan validate":      {"check", "lint", "verify"},
	"k3splan show":          {"list", "ls", "hosts", "tree"},
	"k3splan configuration": {"config", "print", "dump"},
	"k3splan diff":          {"compare", "changes"},
	"k3splan remove":        {"rm", "delete", "del"},
	"k3splan rename":        {"mv"},
	"k3splan update":        {"upgrade", "pin", "lock"},
	"k3splan render":        {"generate", "gen", "template"},
	"k3splan deploy":        {"apply", "switch", "up", "plan"},
	"k3splan boot-stick":    {"stick", "iso", "image", "usb", "installer"},
	"k3splan status":        {"health", "ping"},
	"k3splan ssh":           {"login", "shell", "exec", "run"},
	"k3splan kubeconfig":    {"kubectl"},
	"k3splan replace":       {"swap", "reinstall"},
	"k3splan decommission":  {"drain", "retire", "evict"},
	"k3splan passwd":        {"password"},
	"k3splan known-hosts":   {"keys", "hostkeys", "fingerprints"},
	"k3splan doctor":        {"checkhealth", "info"},
}

// unknownCommand returns the error for an unknown command, with the one that may be meant.
func unknownCommand(parent *cobra.Command, word string) error {
	wrong := &exitError{code: exitInvalid, err: fmt.Errorf("unknown command %q for %q", word, parent.CommandPath()), hint: parent.CommandPath() + " --help"}
	meant := map[string]string{} // by all names
	var names []string
	for _, command := range parent.Commands() {
		names = append(names, command.Name())
		for _, name := range append(otherNames[command.CommandPath()], command.Name()) {
			meant[name] = command.Name()
		}
	}
	if near := nearestOrBegun(strings.ToLower(word), slices.Sorted(maps.Keys(meant))); near != "" {
		wrong.hint = fmt.Sprintf("did you mean %q?", meant[near])
	} else if word == "version" {
		wrong.hint = parent.Root().Name() + " --version"
	} else if parent.HasParent() {
		wrong.hint = "the commands are: " + strings.Join(names, " ")
	}
	return wrong
}

// nearestOrBegun returns the name that is the word, is close to it, or begins with it, or "".
func nearestOrBegun(word string, names []string) string {
	if slices.Contains(names, word) {
		return word
	}
	if nearest := diag.Nearest(word, names); nearest != "" {
		return nearest
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, word) }); i >= 0 {
		return names[i]
	}
	return ""
}

// addFormat adds the flag --format to a command. The first choice is the default, and the only one that
// goes with --json.
func addFormat(command *cobra.Command, format *string, choices ...string) {
	words := strings.Join(choices[:len(choices)-1], ", ") + " or " + choices[len(choices)-1]
	command.Flags().StringVar(format, "format", choices[0], "print as `FORMAT`: "+words)
	if err := command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(choices, nothingElse)); err != nil {
		panic(err) // the flag is the one above
	}
	command.PreRunE = func(*cobra.Command, []string) error {
		switch asJSON, _ := command.Flags().GetBool("json"); {
		case !slices.Contains(choices, *format):
			hint := cmp.Or(diag.DidYouMean(*format, choices), "one of: "+strings.Join(choices, " "))
			return &exitError{code: exitInvalid, err: fmt.Errorf("unknown format %q", *format), hint: hint}
		case asJSON && *format != choices[0]:
			return usageError(fmt.Errorf("--json and --format %s exclude each other", *format))
		}
		return nil
	}
}

// flagError returns the error for a wrong flag, with the one that may be meant.
func flagError(command *cobra.Command, err error) error {
	wrong := &exitError{code: exitInvalid, err: err}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return wrong
	}
	var names []string
	command.Flags().VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden && unknown.GetSpecifiedShortnames() == "" {
			names = append(names, flag.Name)
		}
	})
	if near := nearestOrBegun(unknown.GetSpecifiedName(), names); near != "" {
		wrong.hint = fmt.Sprintf("did you mean --%s?", near)
	} else if strings.Contains(command.Use, "-- ARGS") {
		wrong.hint = "hosts are named without a flag, and Colmena's own flags follow --: " + form(command)
	}
	return wrong
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show the help of a command",
		Example: "  k3splan help add host",
		Args:    cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			found, rest, err := command.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
		ValidArgsFunction: func(command *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var words []cobra.Completion
			if found, rest, err := command.Root().Find(args); err == nil && len(rest) == 0 {
				for _, child := range found.Commands() {
					words = append(words, cobra.CompletionWithDesc(child.Name(), child.Short))
				}
			}
			return words, nothingElse
		},
	}
}

// block is a paragraph of a help text, or a group of indented lines, which are not filled. One without
// lines is an empty line.
type block struct {
	lines []string
	fixed bool
}

func blocksOf(text string) (blocks []block) {
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		last := len(blocks) - 1
		switch fixed := strings.HasPrefix(line, "  "); {
		case line == "":
			blocks = append(blocks, block{})
		case last >= 0 && len(blocks[last].lines) > 0 && blocks[last].fixed == fixed:
			blocks[last].lines = append(blocks[last].lines, line)
		default:
			blocks = append(blocks, block{[]string{line}, fixed})
		}
	}
	return blocks
}

// helpWidth is the width of the terminal, but no more than is easy to read.
func (a *app) helpWidth() int { return min(a.width(), 100) }

// help prints a command's description, filled, and its usage.
func (a *app) help(command *cobra.Command, _ []string) {
	if words := command.Flags().Args(); command.Annotations[onlyGroup] != "" && len(words) > 0 {
		a.noHelp = unknownCommand(command, words[0]) // k3splan deply --help
		return
	}
	for _, b := range blocksOf(cmp.Or(command.Long, command.Short)) {
		lines := b.lines
		if !b.fixed {
			lines = text.Wrap(strings.Join(lines, " "), a.helpWidth())
		}
		fmt.Fprintln(a.stdout, strings.Join(lines, "\n"))
	}
	fmt.Fprintln(a.stdout)
	_ = command.Usage() // prints
}

// usageTemplate is shown below a command's description.
const usageTemplate = `Usage:
{{- if not (index .Annotations "group")}}
  {{.UseLine}}{{end}}
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$all := .Commands}}
{{- range $group := .Groups}}

{{.Title}}{{range $all}}{{if eq .GroupID $group.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if not .Groups}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" shows more about a command.{{end}}
`
