package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/generations"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

func (a *app) generationsCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "generations HOST",
		Short: "List the generations of a host's system",
		Long: `Asks a host for the generations of its system, the newest first, and shows for each when it was made, the
versions of NixOS and k3s in it, and when its deployment ended well (its receipt). The last column says
which one runs, which one the host boots next, and which one the host's receipt names ("deployed", or
"rolled back to").

A generation without a receipt was not deployed to a good end, or by an earlier k3splan. Old generations
are removed by Nix's garbage collection, as the host's configuration says.`,
		Example:           "  k3splan generations karl\n  k3splan generations karl --json",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			host, has, err := a.generations(args[0])
			if err != nil {
				return err
			}
			rows := generationRows(has)
			if asJSON {
				return printJSON(a.stdout, rows)
			}
			if len(rows) == 0 {
				return fmt.Errorf("%s has no generation of a system", host.Name)
			}
			return a.showGenerations(rows)
		},
	}
	addJSON(command, &asJSON, []generationRow{})
	return command
}

func (a *app) generations(name string) (*plan.Host, generations.Host, error) {
	p, err := a.validProject()
	if err != nil {
		return nil, generations.Host{}, err
	}
	selected, err := selectHosts(p.Plan, []string{name})
	if err != nil {
		return nil, generations.Host{}, err
	}
	if len(selected) != 1 {
		return nil, generations.Host{}, usageError(errors.New("generations shows one host"))
	}
	host := selected[0]
	if err := refuseUnknown(selected, p.HostKeys); err != nil {
		return nil, generations.Host{}, err
	}
	ctx, stop := interruptible()
	defer stop()
	ssh, err := remote.Prepare(p.Dir, p.Plan, p.HostKeys)
	if err != nil {
		return nil, generations.Host{}, err
	}
	defer ssh.Close()
	has, err := generations.Of(ctx, ssh.Machine(host, remote.DeployUser))
	if err != nil {
		return nil, generations.Host{}, diag.WithHint(fmt.Errorf("%s: %w", host.Name, err), diag.HintOf(err))
	}
	return host, has, nil
}

// generationRow is a generation, for --json.
type generationRow struct {
	Number int `json:"number"`
	// Date is when it was made, by the host's clock.
	Date   string `json:"date"`
	System string `json:"system"`
	NixOS  string `json:"nixos"`
	// Server and Agent are the containers' names, "" where there is none.
	Server    string `json:"server"`
	ServerK3s string `json:"server_k3s"`
	Agent     string `json:"agent"`
	AgentK3s  string `json:"agent_k3s"`
	// Receipt is when its deployment ended well, or "".
	Receipt string `json:"receipt"`
	// Deployed reports whether the host's receipt names it.
	Deployed  bool `json:"deployed"`
	Runs      bool `json:"runs"`
	BootsNext bool `json:"boots_next"`
	// Booted reports whether the host has booted it.
	Booted bool `json:"booted"`

	made, receipt time.Time
}

// generationRows returns the generations, the newest first. Of several with the same system one is marked.
func generationRows(has generations.Host) []generationRow {
	rows := []generationRow{}
	is := func(g *generations.Generation, number int) bool { return g != nil && g.Number == number }
	runs, booted, deployed := has.With(has.Runs), has.With(has.Booted), has.With(has.Deployed)
	for i := len(has.All) - 1; i >= 0; i-- {
		g := has.All[i]
		row := generationRow{
			Number: g.Number, Date: g.Time.UTC().Format(time.RFC3339), System: g.System, NixOS: g.NixOS,
			Server: g.Server.Name, ServerK3s: g.Server.K3s, Agent: g.Agent.Name, AgentK3s: g.Agent.K3s,
			Deployed: is(deployed, g.Number), Runs: is(runs, g.Number), Booted: is(booted, g.Number), BootsNext: g.Number == has.BootsNext(),
			made: g.Time, receipt: g.Receipt,
		}
		if !g.Receipt.IsZero() {
			row.Receipt = g.Receipt.UTC().Format(time.RFC3339)
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *app) showGenerations(rows []generationRow) error {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Local().Format("2006-01-02 15:04")
	}
	version := func(name, version string) string {
		switch {
		case name == "":
			return "-"
		case version == "":
			return "unknown"
		}
		return diag.Printable(version)
	}
	var table [][]string
	for _, row := range rows {
		var notes []string
		note := func(is bool, text string) {
			if is {
				notes = append(notes, text)
			}
		}
		note(row.Deployed, "deployed")
		note(row.Runs, "runs")
		note(row.BootsNext, "boots next")
		note(row.Booted && !row.Runs, "booted")
		table = append(table, []string{strconv.Itoa(row.Number), at(row.made), diag.Printable(row.NixOS), version(row.Server, row.ServerK3s),
			version(row.Agent, row.AgentK3s), at(row.receipt), strings.Join(notes, ", ")})
	}
	_, err := io.WriteString(a.stdout, a.table([]string{"GENERATION", "DATE", "NIXOS", "SERVER", "AGENT", "RECEIPT", ""}, table))
	return err
}
