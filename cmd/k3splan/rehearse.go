package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"k3splan"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/rehearsal"
	"k3splan/internal/text"
)

func (a *app) rehearseCommand() *cobra.Command {
	var flags struct {
		from   string
		most   int
		driver bool
		asJSON bool
	}
	command := &cobra.Command{
		Use:   "rehearse [HOST…]",
		Short: "Try the plan on virtual machines",
		Long: `Builds a NixOS test in which each host of the plan, or each of those that are named, is a virtual machine
with its own addresses on one virtual network, and runs it: the hosts boot, reach each other by ssh, start
their containers; the servers become the members of etcd, the agents' Nodes become ready; no unit fails.

With --from the machines first run the plan of a git revision, and are then brought to today's in the order
of a deployment. The rack itself is not asked, so REV should be what is deployed.

The secrets in it are made for the rehearsal alone. Disks and boot are those of a virtual machine: neither
a disko layout nor a boot loader is tried. Hosts of another platform are machines of this one. Agents run an
image made from nixpkgs' k3s. There is no other network: what needs one fails.

At most --max hosts take part, the servers first; with names, the init server's host is added if it is not
among them. It needs Nix, and KVM here or on a remote builder.

--driver starts the machines' console instead of the script: "help(machines[0])", "start_all()",
"test_script()".`,
		Example: `  k3splan rehearse
  k3splan rehearse olaf karl
  k3splan rehearse --from HEAD~1
  k3splan rehearse --driver olaf`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case flags.most < 1:
				return usageError(errors.New("--max must be above zero"))
			case flags.driver && flags.asJSON:
				return usageError(errors.New("--driver has no result for --json"))
			}
			p, err := a.validProject()
			if err != nil {
				return err
			}
			selected, err := selectHosts(p.Plan, args)
			if err != nil {
				return err
			}
			if err := requirePins(p); err != nil {
				return err
			}
			if err := requireNix(p); err != nil {
				return err
			}
			choice, err := rehearsal.Choose(p.Plan, selected, len(args) == 0, flags.most)
			if err != nil {
				return usageError(err)
			}
			request := rehearsal.Request{Project: p, Hosts: choice.Hosts, From: flags.from, Templates: k3splan.Files}
			return a.rehearse(request, choice, flags.driver, flags.asJSON)
		},
	}
	f := command.Flags()
	f.StringVar(&flags.from, "from", "", "the git revision `REV` whose plan the machines run first")
	f.IntVar(&flags.most, "max", 5, "how many `HOSTS` take part at most")
	f.BoolVar(&flags.driver, "driver", false, "start a console of the machines instead of the script")
	addJSON(command, &flags.asJSON, rehearsalResult{})
	return command
}

// rehearsalResult is what was rehearsed, for --json.
type rehearsalResult struct {
	Hosts []string         `json:"hosts"`
	Left  []string         `json:"left"`
	Waves []rehearsal.Wave `json:"waves"`
	// Subtests are the parts of the script that began; the last one failed if Passed is false.
	Subtests []string `json:"subtests"`
	Passed   bool     `json:"passed"`
	Log      string   `json:"log"`
	Seconds  float64  `json:"seconds"`
}

func (a *app) rehearse(request rehearsal.Request, choice rehearsal.Choice, driver, asJSON bool) (err error) {
	started := time.Now()
	ctx, stop := interruptible()
	defer stop()
	r, err := rehearsal.Prepare(ctx, request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	hosts := namesOfHosts(request.Hosts)
	a.say("%s with %.1f GiB of memory: %s", text.Count(len(hosts), "virtual machine"), float64(r.Memory)/1024, strings.Join(hosts, " "))
	if len(choice.Added) > 0 {
		a.say("added, as the others join it: %s", strings.Join(choice.Added, " "))
	}
	if len(choice.Left) > 0 {
		a.say("not rehearsed (--max): %s", strings.Join(choice.Left, " "))
	}
	for i, wave := range r.Waves {
		a.say("change, wave %d of %d: %s: %s", i+1, len(r.Waves), wave.Kind, strings.Join(wave.Hosts, " "))
	}
	if driver {
		return r.Drive(ctx, a.stdin, a.stdout, a.stderr)
	}
	logs, err := files.OwnFolder(request.Project.Dir, files.StateDir, "logs", started.Format("20060102-150405"))
	if err != nil {
		return err
	}
	result := rehearsalResult{Hosts: hosts, Left: text.OrEmpty(choice.Left), Waves: text.OrEmpty(r.Waves), Subtests: []string{}, Log: logs + "/rehearsal.log"}
	log, err := files.Append(result.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	a.say("what Nix and the machines say is kept in %s", result.Log)
	failed := r.Run(ctx, log, func(name string) {
		result.Subtests = append(result.Subtests, name)
		a.say("%s", name)
	})
	result.Passed, result.Seconds = failed == nil, time.Since(started).Seconds()
	if asJSON {
		return errors.Join(printJSON(a.stdout, result), failed)
	}
	if failed != nil {
		return failed
	}
	_, err = fmt.Fprintf(a.stdout, "the plan works on %s (%.0f s)\n", text.Count(len(hosts), "virtual machine"), result.Seconds)
	return err
}

func namesOfHosts(hosts []*plan.Host) []string {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = host.Name
	}
	return names
}
