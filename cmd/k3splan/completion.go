package main

// Completion of arguments. A plan with errors is used where it can be read, without a message.

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"k3splan/internal/plan"
)

// nothingElse keeps the shell from completing names of files.
var nothingElse = cobra.ShellCompDirectiveNoFileComp

func (a *app) completionCommand() *cobra.Command {
	shells := []cobra.Completion{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script for completion in bash, zsh or fish",
		Long: `Prints a script with which the shell completes k3splan's commands and flags, and the hosts, tags,
containers and secrets of the project. Put it where new shells find it, and again after each upgrade
of k3splan. bash also needs the package bash-completion.`,
		Example: `  mkdir -p ~/.local/share/bash-completion/completions
  k3splan completion bash > ~/.local/share/bash-completion/completions/k3splan

  mkdir -p ~/.zfunc # which ~/.zshrc names: fpath+=~/.zfunc; autoload -U compinit; compinit
  k3splan completion zsh > ~/.zfunc/_k3splan

  mkdir -p ~/.config/fish/completions
  k3splan completion fish > ~/.config/fish/completions/k3splan.fish`,
		Args:      usageArgs(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: shells,
		RunE: func(command *cobra.Command, args []string) error {
			root := command.Root()
			var script bytes.Buffer
			err := map[string]func() error{
				"bash": func() error { return root.GenBashCompletionV2(&script, true) },
				"zsh":  func() error { return root.GenZshCompletion(&script) },
				"fish": func() error { return root.GenFishCompletion(&script, true) },
			}[args[0]]()
			if err != nil {
				return err
			}
			_, err = a.stdout.WriteString(wordsOfBash.Replace(script.String()))
			return err
		},
	}
}

// onlyFolders offers folders.
var onlyFolders = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)

// wordsOfBash fixes cobra's script for bash. An interactive bash ends a word at the @ before a tag, so it
// would never complete one; the script already joins such words at = and :. And it compares words in
// bash's quoting, in which a comma has a backslash that users do not type.
var wordsOfBash = strings.NewReplacer(
	"init_completion -n =: ", "init_completion -n =:@ ",
	"    __k3splan_handle_special_char \"$cur\" =\n", "    __k3splan_handle_special_char \"$cur\" =\n    __k3splan_handle_special_char \"$cur\" @\n",
	`[[ $comp == "$cur"* ]]`, `[[ ${comp//\\,/,} == "$cur"* ]]`,
	`COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]%%$tab*}")`, `COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]%%$tab*}"); COMPREPLY[0]=${COMPREPLY[0]//\\,/,}`,
)

// describeFlags removes the quotes around the names of values, which shells would show.
func describeFlags(command *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{command.LocalFlags(), command.PersistentFlags()} {
		flags.VisitAll(func(flag *pflag.Flag) { _, flag.Usage = pflag.UnquoteUsage(flag) })
	}
	for _, child := range command.Commands() {
		describeFlags(child)
	}
}

// planSoFar returns what can be read of the plan for completions; nil without a project.
func (a *app) planSoFar() *plan.Plan {
	w, err := a.workspace()
	if err != nil {
		return nil
	}
	p, _ := w.Plan()
	return p
}

// completeHosts offers hosts and tags that are not named yet, after a comma or an exclamation mark too.
func (a *app) completeHosts(_ *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	p := a.planSoFar()
	// arguments after -- are Colmena's; cobra does not report here whether there was one
	if p == nil || slices.Contains(os.Args[:len(os.Args)-1], "--") {
		return nil, nothingElse
	}
	before := word[:strings.LastIndexAny(word, ",!")+1]
	named := strings.FieldsFunc(strings.ToLower(strings.Join(append(args, before), ",")), func(c rune) bool { return c == ',' || c == '!' })
	var words []cobra.Completion
	for _, name := range append(p.HostNames(), tagsOf(p)...) {
		if !slices.Contains(named, name) {
			words = append(words, before+described(p, name))
		}
	}
	return words, nothingElse
}

// completeName offers names of the plan, described, for the first argument or a flag.
func (a *app) completeName(names func(*plan.Plan) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		p := a.planSoFar()
		if p == nil || len(args) > 0 {
			return nil, nothingElse
		}
		var words []cobra.Completion
		for _, name := range names(p) {
			words = append(words, described(p, name))
		}
		return words, nothingElse
	}
}

// completeHostNames offers hosts for the first argument.
func (a *app) completeHostNames(command *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeName((*plan.Plan).HostNames)(command, args, word)
}

// completeEachHost offers hosts that are not named yet, and no tags.
func (a *app) completeEachHost(command *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeName(func(p *plan.Plan) []string {
		return slices.DeleteFunc(p.HostNames(), func(name string) bool { return slices.Contains(args, name) })
	})(command, nil, word)
}

// completeServers offers the k3s servers.
func (a *app) completeServers(command *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeName(func(p *plan.Plan) []string { return plan.Names(p.Servers()) })(command, nil, word)
}

// completeValues offers the values that hosts of the plan have already.
func (a *app) completeValues(of func(*plan.Host) []string, more ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		values := slices.Clone(more)
		if p := a.planSoFar(); p != nil {
			for _, host := range p.Hosts {
				values = append(values, of(host)...)
			}
		}
		slices.Sort(values)
		return slices.Compact(values), nothingElse
	}
}

// completeAddress offers the next free address; role is "" for a host.
func (a *app) completeAddress(role plan.Role) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		p := a.planSoFar()
		if p == nil || !p.NextAddress(role).IsValid() {
			return nil, nothingElse
		}
		return []cobra.Completion{p.NextAddress(role).String()}, nothingElse
	}
}

// hostsWhere returns the names of the hosts that meet a condition.
func hostsWhere(condition func(*plan.Host) bool) func(*plan.Plan) []string {
	return func(p *plan.Plan) []string {
		var names []string
		for _, host := range p.Hosts {
			if condition(host) {
				names = append(names, host.Name)
			}
		}
		return names
	}
}

// tagsOf returns the tags and roles of all hosts, as they are written ("@storage").
func tagsOf(p *plan.Plan) []string {
	var tags []string
	for _, tag := range slices.Concat(p.Tags(), plan.RoleTags()) {
		if len(tagged(p, tag)) > 0 {
			tags = append(tags, "@"+tag)
		}
	}
	return tags
}

func tagged(p *plan.Plan, tag string) []string {
	return hostsWhere(func(h *plan.Host) bool { return slices.Contains(slices.Concat(h.Tags, h.RoleTags()), tag) })(p)
}

// described adds a description to a name of the plan.
func described(p *plan.Plan, name string) cobra.Completion {
	if tag, isTag := strings.CutPrefix(name, "@"); isTag {
		return cobra.CompletionWithDesc(name, strings.Join(tagged(p, tag), " "))
	}
	if host := p.Host(name); host != nil {
		words := []string{cmp.Or(host.Target.Host, "this machine")}
		if host.Address.IsValid() {
			words[0] = host.Address.String()
		}
		for _, container := range host.Containers() {
			words = append(words, container.Role.What())
		}
		return cobra.CompletionWithDesc(name, strings.Join(append(words, host.Tags...), ", "))
	}
	for _, container := range p.Containers() {
		if container.Name == name {
			return cobra.CompletionWithDesc(name, fmt.Sprintf("%s on %s", container.Role.What(), container.Host.Name))
		}
	}
	return name
}
