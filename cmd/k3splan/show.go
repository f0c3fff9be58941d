package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/hive"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/show"
)

func (a *app) showCommand() *cobra.Command {
	var format, theme string
	var asJSON bool
	command := &cobra.Command{
		Use:   "show",
		Short: "Show the rack: hosts, containers, quorum, free addresses",
		Long: `Shows the plan as a table, with the containers below their hosts, and a summary: how many servers
etcd can lose, which addresses are free. It fits the terminal's width ($COLUMNS, or 80 columns
in a pipe).

As a picture (--format svg) it is a network diagram; as a page (--format html) a single file with the
picture, a table of all addresses to sort and search, and every problem of the project.

What can be understood of a plan with errors is drawn, but not as JSON. The errors are printed to stderr,
and the exit code is 2. Missing secrets, as in a fresh clone, are not errors here.`,
		Example: `  k3splan show
  k3splan show --format html > rack.html
  k3splan show --json | jq -r .free.next.host
  k3splan show addresses --format hosts
  k3splan show host olaf`,
		Args: noHostNamed,
		RunE: func(*cobra.Command, []string) error {
			if format != "svg" && theme != string(show.Auto) {
				return usageError(errors.New("--theme is for --format svg only"))
			}
			if !slices.Contains(show.Themes, theme) {
				return diag.WithHint(usageError(fmt.Errorf("unknown theme %q", theme)), cmp.Or(diag.DidYouMean(theme, show.Themes), "one of: "+strings.Join(show.Themes, " ")))
			}
			return a.show(format, show.Theme(theme), asJSON)
		},
	}
	addFormat(command, &format, "table", "svg", "html")
	command.Flags().StringVar(&theme, "theme", show.Themes[0], "the colours of --format svg: `THEME` is auto, which follows the reader's choice, light or dark")
	if err := command.RegisterFlagCompletionFunc("theme", cobra.FixedCompletions(show.Themes, nothingElse)); err != nil {
		panic(err) // the flag is the one above
	}
	addJSON(command, &asJSON, show.View{})
	command.AddCommand(a.showAddressesCommand(), a.showHostCommand())
	return command
}

// noHostNamed refuses arguments, with a hint for a host or a misspelt command.
func noHostNamed(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("one host: k3splan show host %s\nall addresses: k3splan show addresses", args[0])
	if nearest := diag.Nearest(args[0], []string{"host", "addresses"}); nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", "k3splan show "+nearest)
	}
	return &exitError{code: exitInvalid, err: fmt.Errorf("cannot show %q", args[0]), hint: hint}
}

func (a *app) show(format string, theme show.Theme, asJSON bool) error {
	return a.draw(!asJSON, func(view *show.View) error {
		switch {
		case asJSON:
			return printJSON(a.stdout, view)
		case format == "svg":
			return view.SVG(a.stdout, theme)
		case format == "html":
			return view.HTML(a.stdout)
		}
		_, err := fmt.Fprint(a.stdout, a.terminal().Cluster(view))
		return err
	})
}

// draw prints a plan by draw. With errors in its tables it is drawn for people only; with errors anywhere
// but in the secrets, which a clone does not have, the exit code is 2.
func (a *app) draw(forPeople bool, draw func(*show.View) error) error {
	p, problems, err := a.look()
	if err != nil {
		return err
	}
	if forPeople || ofTables(problems).Errors() == 0 {
		err = draw(show.New(p.Plan, problems, filepath.Base(p.Dir)))
	}
	return cmp.Or(err, a.failOn(problems))
}

// failOn prints the problems of what is shown if there is an error among them, and returns the error of
// an invalid plan.
func (a *app) failOn(problems diag.Problems) error {
	shown := slices.DeleteFunc(slices.Clone(problems), show.OfSecrets)
	if shown.Errors() == 0 {
		return nil
	}
	return cmp.Or(a.printProblems(a.stderr, shown), invalid())
}

// look reads the project with all its problems, for commands that only show it. A plan without hosts is an
// error.
func (a *app) look() (*project.Project, diag.Problems, error) {
	w, err := a.workspace()
	if err != nil {
		return nil, nil, err
	}
	p, problems := w.Project()
	if len(p.Plan.Hosts) == 0 {
		return nil, nil, cmp.Or(a.printProblems(a.stderr, ofTables(problems)), invalid())
	}
	return p, problems, nil
}

// ofTables returns the problems of the tables, without those of secrets, snippets and pins.
func ofTables(problems diag.Problems) diag.Problems {
	return slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool {
		return !strings.HasPrefix(p.File, "plans/") || p.File == pins.File
	})
}

func (a *app) terminal() show.Terminal {
	return show.Terminal{Width: a.width(), Colour: a.coloured(a.stdout)}
}

// usedAndFree are the addresses of a plan.
type usedAndFree struct {
	Used []show.Address `json:"used"`
	Free show.Free      `json:"free"`
}

func (a *app) showAddressesCommand() *cobra.Command {
	var format string
	var asJSON bool
	command := &cobra.Command{
		Use:   "addresses",
		Short: "Show all addresses in order, and the free ones",
		Long: `Shows every address that the plan uses, sorted, the free ones, and those that "k3splan add" uses
next. --format hosts prints lines for /etc/hosts, with the names that are in those of every host. A
plan with errors is shown as a table only.`,
		Example: "  k3splan show addresses\n  k3splan show addresses --format hosts > hosts.txt\n  k3splan show addresses --format markdown",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.draw(format == "table" && !asJSON, func(view *show.View) error {
				if asJSON {
					return printJSON(a.stdout, usedAndFree{view.Used, view.Free})
				}
				text := map[string]func() string{
					"table": func() string { return a.terminal().Addresses(view) }, "hosts": view.AddressesHosts,
					"csv": view.AddressesCSV, "markdown": view.AddressesMarkdown,
				}[format]()
				_, err := fmt.Fprint(a.stdout, text)
				return err
			})
		},
	}
	addFormat(command, &format, "table", "hosts", "csv", "markdown")
	addJSON(command, &asJSON, usedAndFree{})
	return command
}

func (a *app) showHostCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "host HOST",
		Short: "Show everything about a host, and where each value comes from",
		Long: `Shows each value that configures the host and its containers with its place in the tables
("plans/hosts.csv:3"), or "default" where the tables do not set it, and the files of the project that
contribute to it.`,
		Example:           "  k3splan show host olaf\n  k3splan show host olaf --json | jq -r '.[] | select(.field == \"ip\").where'",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeHostNames,
		RunE: func(_ *cobra.Command, args []string) error {
			p, problems, err := a.look()
			if err != nil {
				return err
			}
			host := p.Plan.Host(strings.ToLower(args[0]))
			if host == nil {
				return unknownHost(p.Plan, args[0])
			}
			details := show.Details(p.Plan, host, filesOf(p, host))
			if asJSON {
				err = printJSON(a.stdout, details)
			} else {
				_, err = fmt.Fprint(a.stdout, a.terminal().Host(details))
			}
			if err = cmp.Or(err, a.failOn(problems)); err != nil {
				return err
			}
			return a.printProblems(a.stderr, slices.DeleteFunc(problems, func(problem diag.Problem) bool { return !concerns(host, problem) }))
		},
	}
	addJSON(command, &asJSON, []show.Detail{})
	return command
}

// concerns reports whether a problem is in one of the host's rows.
func concerns(host *plan.Host, problem diag.Problem) bool {
	return host.Concerns(problem) || slices.ContainsFunc(host.Containers(), func(c *plan.Container) bool { return c.Concerns(problem) })
}

// filesOf returns the files of the project that contribute to a host; secrets by their path.
func filesOf(p *project.Project, host *plan.Host) []show.File {
	var files []show.File
	add := func(purpose string, paths ...string) {
		for _, path := range paths {
			if path != "" {
				files = append(files, show.File{Path: path, Purpose: purpose})
			}
		}
	}
	add("host's Nix", p.Imports(host)...)
	add("server's Nix", p.ServerImports(host)...)
	if host.Server != nil && len(p.ServerConfig) > 0 {
		add("k3s options", "k3s/server.yaml")
	}
	if host.Agent != nil && len(p.AgentConfig) > 0 {
		add("k3s options", "k3s/agent.yaml")
	}
	add("ssh keys", p.Secrets.KeyFiles(host.Name)...)
	for _, secret := range hive.Secrets(p, host) {
		add(secret.Name, cmp.Or(secret.KeyFile, p.Secrets.At(secret.Entry)))
	}
	if p.HostKeys.Known(host.Name) {
		add("known hosts", remote.KnownHostsFile)
	}
	if p.Lock.Origin(p.Plan.Network.Versions.NixOS).Tarball != nil {
		add("pins", pins.File)
	}
	for _, manifest := range p.Manifests {
		if host.Server != nil {
			add("manifest", "manifests/"+manifest.Name)
		}
	}
	return files
}
