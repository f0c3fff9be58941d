// The k3splan command: turns plan tables into a running NixOS/k3s rack.
//
// Flags, printing and exit codes are here and nowhere else. The result of a command goes to stdout,
// messages go to stderr, so that pipes work. Exit codes: 0 done; 1 the operation failed; 2 wrong usage or
// an invalid plan, and nothing was changed.
package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"k3splan/internal/project"
	"k3splan/internal/secrets"
)

func main() { os.Exit(execute(os.Args[1:])) }

func execute(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	a.sweep()
	root := a.root()
	root.SetArgs(args)
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		describeFlags(root)
	}
	command, err := root.ExecuteContextC(context.Background())
	if err == nil {
		err = a.noHelp
	}
	if err == nil {
		return 0
	}
	return a.fail(command, err)
}

// app is what all commands share.
type app struct {
	stdin          *os.File
	stdout, stderr *os.File

	projectDir string // -p
	noColor    bool   // --no-color

	noHelp error // set by help, which cannot return one to cobra

	opened      *project.Workspace // by workspace
	openedVault *secrets.Vault     // by openVault

	shown atomic.Pointer[progress] // the progress being shown, or nil
}

// sweep removes the decrypted secrets of a k3splan process that crashed.
func (a *app) sweep() {
	swept, err := secrets.SweepRuntime()
	if err != nil {
		a.warn("%v", err)
	}
	if swept > 0 {
		a.say("removed the decrypted secrets that an interrupted k3splan left behind")
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "k3splan",
		Short: "From a spreadsheet of machines to a running NixOS/k3s rack",
		Long: `k3splan reads a plan of machines (plans/hosts.csv, plans/k3s.csv, plans/network.yaml, or in their
place the sheets hosts, k3s and network of plans/cluster.xlsx), reports everything that is wrong with
it, and renders a NixOS hive that Colmena builds and deploys.`,
		Example: `  k3splan setup my-rack && cd my-rack
  k3splan validate
  k3splan deploy`,
		Version:           version(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DefaultShellCompDirective: &nothingElse},
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			// -p "$UNSET" must not mean the project that happens to be here
			if command.Flags().Changed("project") && a.projectDir == "" {
				return usageError(errors.New("-p needs a folder"))
			}
			return nil
		},
	}
	root.SetVersionTemplate("k3splan {{.Version}}\n")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVarP(&a.projectDir, "project", "p", "", "the project's `DIR` (default: the current folder or the nearest one above it that contains plans/)")
	root.PersistentFlags().BoolVar(&a.noColor, "no-color", false, "print without colours, like NO_COLOR in the environment")
	_ = root.MarkPersistentFlagDirname("project") // the flag exists
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(strings.ReplaceAll(usageTemplate, "WIDTH", strconv.Itoa(a.helpWidth())))
	root.SetHelpFunc(a.help)
	groupOf(root)
	a.addCommands(root)
	return root
}

// addCommands adds the commands in the order in which a user needs them.
func (a *app) addCommands(root *cobra.Command) {
	cobra.EnableCommandSorting = false
	help := helpCommand()
	root.SetHelpCommand(help)
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"The plan", []*cobra.Command{
			a.setupCommand(), a.validateCommand(), a.showCommand(), a.diffCommand(), a.addCommand(), a.removeCommand(), a.renameCommand(), a.convertCommand(), a.configurationCommand(),
		}},
		{"Installing and deploying", []*cobra.Command{
			a.updateCommand(), a.upgradeCommand(), a.renderCommand(), a.buildCommand(), a.rehearseCommand(), a.deployCommand(), a.bootStickCommand(), a.hardwareCommand(),
		}},
		{"The running rack", []*cobra.Command{
			a.statusCommand(), a.checkCommand(), a.machinesCommand(), a.sequenceCommand(), a.rebootCommand(), a.generationsCommand(), a.rollbackCommand(), a.sshCommand(), a.sshConfigCommand(), a.kubeconfigCommand(), a.etcdCommand(), a.replaceCommand(), a.decommissionCommand(),
		}},
		{"Secrets and keys", []*cobra.Command{
			a.passwdCommand(), a.secretsCommand(), a.tokenCommand(), a.knownHostsCommand(),
		}},
		{"k3splan itself", []*cobra.Command{
			a.doctorCommand(), a.schemaCommand(), a.manCommand(), a.completionCommand(), help,
		}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title + ":"})
		for _, command := range group.commands {
			command.GroupID = group.title
			root.AddCommand(command)
		}
	}
}

// version returns the module's version if it was installed by version, else the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	if revision := buildSetting("vcs.revision"); revision != "" {
		return "devel " + revision[:min(12, len(revision))]
	}
	return "devel"
}

// buildSetting returns what go build recorded about the commit, or "".
func buildSetting(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == key {
			return setting.Value
		}
	}
	return ""
}
