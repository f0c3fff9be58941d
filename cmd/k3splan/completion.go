package main

import (
	"bytes"
	"strings"

	"github.com/spf13/cobra"
)

// completionExamples show how each shell takes up its completion.
var completionExamples = map[string]string{
	"completion": "  k3splan completion bash > k3splan.bash",
	"bash":       "  mkdir -p ~/.local/share/bash-completion/completions\n  k3splan completion bash > ~/.local/share/bash-completion/completions/k3splan",
	"zsh":        "  mkdir -p ~/.zfunc # which ~/.zshrc names: fpath+=~/.zfunc; autoload -U compinit; compinit\n  k3splan completion zsh > ~/.zfunc/_k3splan",
	"fish":       "  mkdir -p ~/.config/fish/completions\n  k3splan completion fish > ~/.config/fish/completions/k3splan.fish",
	"powershell": "  k3splan completion powershell > k3splan.ps1",
	"help":       "  k3splan help add host",
}

// finishCommands completes the commands that cobra itself adds; all others must be there.
func finishCommands(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, command := range root.Commands() {
		if command.Name() != "completion" && command.Name() != "help" {
			continue
		}
		command.Example = completionExamples[command.Name()]
		for _, shell := range command.Commands() {
			shell.Example = completionExamples[shell.Name()]
			if shell.Name() == "bash" {
				completeTagsInBash(root, shell)
			}
		}
	}
}

// completeTagsInBash: an interactive bash takes the @ before a tag for the end of a word, and so
// would never complete one. The script joins such words already at = and :.
func completeTagsInBash(root, bash *cobra.Command) {
	bash.RunE = func(command *cobra.Command, _ []string) error {
		plain, err := command.Flags().GetBool("no-descriptions")
		if err != nil {
			return err
		}
		var script bytes.Buffer
		if err := root.GenBashCompletionV2(&script, !plain); err != nil {
			return err
		}
		const special = "    __k3splan_handle_special_char \"$cur\" =\n"
		text := strings.ReplaceAll(script.String(), "init_completion -n =: ", "init_completion -n =:@ ")
		text = strings.Replace(text, special, special+strings.Replace(special, "=", "@", 1), 1)
		_, err = root.OutOrStdout().Write([]byte(text))
		return err
	}
}
