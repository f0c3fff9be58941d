package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/edit"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/table"
)

func (a *app) addCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "add",
		Short: "Add a host, a server or an agent to the tables",
		Long: `Adds a row to plans/hosts.csv or plans/k3s.csv, in the style of the table; everything else
keeps its bytes. A column that a flag needs is added if the table lacks it. Values that are left out
are chosen: the address is the next free one in the subnet, or in address_range of plans/network.yaml.
The meaning of the change is shown as by ` + "`k3splan diff`" + `, and nothing is written unless the plan is
valid with it.`,
		Example: "  k3splan add host karl-2 --interface eno1 --admin karl\n  k3splan add server karl --dry-run\n  k3splan add agent rolf",
	}, a.addHostCommand(), a.addContainerCommand(plan.Server), a.addContainerCommand(plan.Agent))
}

// cellFlags are flags whose values become cells, by column.
type cellFlags struct {
	command *cobra.Command
	cells   map[string]*string
	lists   map[string]*[]string
	own     *[]string
}

// newCellFlags begins with --set. own are the cells of the user's columns in rows of the table.
func (a *app) newCellFlags(command *cobra.Command, own func(*plan.Host) []map[string]string) *cellFlags {
	f := &cellFlags{command, map[string]*string{}, map[string]*[]string{}, new([]string)}
	command.Flags().StringArrayVar(f.own, "set", nil, "fill a column of your own: `COLUMN=VALUE`; may be repeated")
	columns := a.completeValues(func(h *plan.Host) (columns []string) {
		for _, cells := range own(h) {
			for column := range cells {
				columns = append(columns, column+"=")
			}
		}
		return columns
	})
	_ = command.RegisterFlagCompletionFunc("set", func(command *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		values, directive := columns(command, args, start)
		return values, directive | cobra.ShellCompDirectiveNoSpace
	})
	return f
}

func (f *cellFlags) text(column, usage string, complete cobra.CompletionFunc) {
	f.cells[column] = f.command.Flags().String(flagOf(column), "", usage)
	f.complete(flagOf(column), complete)
}

// flagOf is the name of the flag for a column.
func flagOf(column string) string { return strings.ReplaceAll(column, "_", "-") }

// list is a flag that may be repeated; its values stand in one cell.
func (f *cellFlags) list(flag, column, usage string, complete cobra.CompletionFunc) {
	f.lists[column] = f.command.Flags().StringArray(flag, nil, usage+"; may be repeated")
	f.complete(flag, complete)
}

func (f *cellFlags) complete(flag string, with cobra.CompletionFunc) {
	if with != nil {
		_ = f.command.RegisterFlagCompletionFunc(flag, with) // fails for an unknown flag only
	}
}

// values returns the cells that the flags set, and those of the command itself: column, value, and so on.
func (f *cellFlags) values(own ...string) (map[string]string, error) {
	cells := map[string]string{}
	for i := 0; i < len(own); i += 2 {
		cells[own[i]] = strings.ToLower(table.TrimCell(own[i+1]))
	}
	for column, value := range f.cells {
		if f.command.Flags().Changed(flagOf(column)) {
			if cells[column] = table.TrimCell(*value); cells[column] == "" { // an unset variable of a script
				return nil, usageError(fmt.Errorf("the value of --%s is empty", flagOf(column)))
			}
		}
	}
	for column, values := range f.lists {
		if len(*values) > 0 {
			cells[column] = strings.Join(*values, " ")
		}
	}
	for _, pair := range *f.own {
		column, value, found := strings.Cut(pair, "=")
		column = strings.ToLower(table.TrimCell(column))
		switch {
		case !found || column == "":
			return nil, usageError(fmt.Errorf("--set %q is not COLUMN=VALUE", pair))
		case cells[column] != "":
			return nil, usageError(fmt.Errorf("%s is given twice", column))
		}
		cells[column] = table.TrimCell(value)
	}
	return cells, nil
}

func (a *app) addHostCommand() *cobra.Command {
	e := &editing{app: a}
	command := &cobra.Command{
		Use:   "host NAME",
		Short: "Add a machine to plans/hosts.csv",
		Long: `Adds a machine. Interface and admin need not be named if all hosts have the same, nor the admin if
that of each host is called like the host. The address is the first free one after those of the
other hosts, unless --ip names one.`,
		Example: `  k3splan add host otto --interface eno1
  k3splan add host otto --interface eno1 --admin olaf --ip 10.0.100.40@otto.example --tag storage
  k3splan add host otto --interface eth0 --set slot=6 --dry-run`,
		Args: usageArgs(cobra.ExactArgs(1)),
	}
	cells := a.newCellFlags(command, func(h *plan.Host) []map[string]string { return []map[string]string{h.Own} })
	cells.text("interface", "the network `INTERFACE`", a.completeValues(func(h *plan.Host) []string { return []string{h.Interface} }))
	cells.text("ip", "the address: `ADDRESS`, ADDRESS@TARGET or dhcp@TARGET", a.completeAddress(""))
	cells.text("admin", "the `LOGIN` of the person who looks after it", a.completeValues(func(h *plan.Host) []string { return []string{h.Admin} }))
	cells.text("serial", "the `SERIAL` of the disk to partition", nil)
	cells.text("boot", "how it boots: `efi|legacy`", cobra.FixedCompletions([]string{"efi", "legacy"}, nothingElse))
	cells.text("system", "its `SYSTEM`: x86_64-linux or aarch64-linux", cobra.FixedCompletions([]string{"x86_64-linux", "aarch64-linux"}, nothingElse))
	cells.text("mac", "the `MAC` address of the interface", nil)
	cells.text("state_version", "the `RELEASE` of NixOS that it was installed with, if it is not the plan's", cobra.FixedCompletions(releaseNames(), nothingElse))
	cells.list("tag", "tags", "a `TAG` to select the host by", a.completeValues(func(h *plan.Host) []string { return h.Tags }))
	cells.text("role", "what it is for, in a `WORD` or a few", a.completeValues(func(h *plan.Host) []string { return []string{h.Machine.Role} }))
	cells.list("group", "groups", "a `GROUP` that it is deployed with", a.completeValues(func(h *plan.Host) []string { return h.Machine.Groups }))
	cells.list("depends-on", "depends_on", "a `HOST` that has to be healthy first", a.completeHostNames)
	cells.text("reboot_order", "hosts with a lower `NUMBER` reboot earlier", nil)
	cells.text("reboot_delay", "the `SECONDS` to wait before it reboots", nil)
	cells.text("strategy", "how its groups are to be deployed: `rolling|recreate|blue-green`", cobra.FixedCompletions(plan.Strategies(), nothingElse))
	cells.text("criticality", "how much depends on it: `low|medium|high|critical`", cobra.FixedCompletions(plan.Criticalities(), nothingElse))
	e.flags(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		values, err := cells.values("name", args[0])
		if err != nil {
			return err
		}
		return e.run(func(tables *edit.Edit) error { return tables.AddHost(values) }, e.thenInstall(values["name"]))
	}
	return command
}

func releaseNames() (names []string) {
	for _, r := range release.All() {
		names = append(names, r.Name)
	}
	return names
}

// addContainerCommand is `add server` or `add agent`.
func (a *app) addContainerCommand(role plan.Role) *cobra.Command {
	e := &editing{app: a}
	kind := string(role)
	command := &cobra.Command{
		Use:   kind + " HOST",
		Short: "Add a k3s " + kind + " to a host in plans/k3s.csv",
		Long: `Adds a k3s server to a host. The first server of a plan becomes the init server. Name and address
are chosen as those of the other servers, unless --name and --ip tell them.`,
		Example:           "  k3splan add server karl\n  k3splan add server ulrich --name ulrich-etcd --ip 10.0.100.16 --dry-run",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeName(hostsWhere(func(h *plan.Host) bool { return h.Server == nil && !h.DHCP() })),
	}
	if role == plan.Agent {
		command.Long = `Adds a k3s agent to a host. Name and address are chosen as those of the other agents, unless
--name and --ip tell them.`
		command.Example = "  k3splan add agent rolf\n  k3splan add agent ulrich --label disk=large --taint storage=only:NoSchedule"
		command.ValidArgsFunction = a.completeName(hostsWhere(func(h *plan.Host) bool { return h.Agent == nil && !h.DHCP() }))
	}
	cells := a.newCellFlags(command, func(h *plan.Host) (own []map[string]string) {
		for _, c := range h.Containers() {
			own = append(own, c.Own)
		}
		return own
	})
	cells.text("name", "the `NAME` of the "+kind, nil)
	cells.text("ip", "its `ADDRESS`", a.completeAddress(role))
	cells.text("mac", "its `MAC` address", nil)
	if role == plan.Agent {
		cells.list("label", "labels", "a label `KEY=VALUE` of the node", a.completeValues(func(h *plan.Host) []string { return ofAgent(h).Labels }))
		cells.list("taint", "taints", "a taint `KEY=VALUE:EFFECT` of the node", a.completeValues(func(h *plan.Host) []string { return ofAgent(h).Taints }))
	}
	e.flags(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		values, err := cells.values("host", args[0], "type", string(role))
		if err != nil {
			return err
		}
		return e.run(func(tables *edit.Edit) error { return tables.AddContainer(role, values) }, e.thenDeploy)
	}
	return command
}

// ofAgent returns the host's agent, or an empty one.
func ofAgent(host *plan.Host) plan.Container { return *cmp.Or(host.Agent, &plan.Container{}) }
