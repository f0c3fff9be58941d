package main

// What the shell offers for an argument. A plan with mistakes is completed as far as it can be read,
// and nothing is said of them.

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

// nothingElse: where k3splan knows no words, the names of files would be wrong.
var nothingElse = cobra.ShellCompDirectiveNoFileComp

func (a *app) completionCommand() *cobra.Command {
	shells := []cobra.Completion{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what lets a shell complete commands, hosts and tags",
		Long: `Prints a script with which the shell completes k3splan's commands and flags, and the hosts, tags,
containers and secrets of the project. Put it where new shells find it, and again after an upgrade of
k3splan. bash needs the package bash-completion for it.`,
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

// wordsOfBash mends cobra's script for bash. An interactive bash takes the @ before a tag for the end
// of a word, and so would never complete one: the script joins such words already at = and :. And it
// compares in bash's quoting, in which a comma has a backslash, that nobody types.
var wordsOfBash = strings.NewReplacer(
	"init_completion -n =: ", "init_completion -n =:@ ",
	"    __k3splan_handle_special_char \"$cur\" =\n", "    __k3splan_handle_special_char \"$cur\" =\n    __k3splan_handle_special_char \"$cur\" @\n",
	`[[ $comp == "$cur"* ]]`, `[[ ${comp//\\,/,} == "$cur"* ]]`,
	`COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]%%$tab*}")`, `COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]%%$tab*}"); COMPREPLY[0]=${COMPREPLY[0]//\\,/,}`,
)

// describeFlags: what the shell shows of a flag is its usage without the quotes that name its value.
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

// completeHosts offers hosts and tags that are not named yet, also after a comma or an exclamation mark.
func (a *app) completeHosts(_ *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	p := a.planSoFar()
	// what stands behind -- is Colmena's; cobra does not tell here whether there was one
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

// completeName offers names of the plan, with what they are, for the first argument or a flag.
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

// completeValues offers what the plan's hosts have already, for the value of a flag.
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

// completeAddress offers the address that something new would get; role is "" for a host.
func (a *app) completeAddress(role plan.Role) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		p := a.planSoFar()
		if p == nil || !p.NextAddress(role).IsValid() {
			return nil, nothingElse
		}
		return []cobra.Completion{p.NextAddress(role).String()}, nothingElse
	}
}

// hostsWhere gives the names of the hosts of which something is true.
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

// tagsOf are the tags and roles that any host has, as they are written.
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

// described adds to a name of the plan what it is, for shells that show it.
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
