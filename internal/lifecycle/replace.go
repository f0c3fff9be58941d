package lifecycle

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

// Replacement is what [Replace] is to do.
type Replacement struct {
	Request
	// Cells are those of the new machine by column: serial, mac, interface.
	Cells map[string]string
	// NewKey makes a new ssh key for the host. Without it the new machine gets the one that k3splan made for
	// the old one; a key that was adopted was on the old machine only.
	NewKey bool
	Keys   remote.HostKeys
}

// Replace prepares the cluster and the plan for a new machine in the place of a dead one: its server leaves
// etcd and its Node is deleted, so that the new machine can join under the same names.
//
// The outcome is nil if nothing was found out.
func Replace(ctx context.Context, view View, r Replacement) (*Outcome, error) {
	w, err := begin(ctx, view, r.Request)
	if err != nil {
		return nil, err
	}
	if err := w.judge(ctx); err != nil {
		return nil, err
	}
	host := r.Host
	// that fewer servers are left is not the choice of whoever replaces a dead one
	w.outcome.Objections = slices.DeleteFunc(w.outcome.Objections, func(p diag.Problem) bool { return p.Code == "spare-lost" })
	if err := w.refuseAlive(ctx); err != nil {
		return nil, err
	}
	w.warnOld(r)
	w.chooseSuccessor()
	if host.Server != nil && w.hasCluster() {
		w.add(w.removeMember())
	}
	if host.Agent != nil && w.hasCluster() {
		w.add(w.deleteNode())
	}
	if w.answers() {
		w.add(step{
			kind: "receipt", what: "delete the receipt on " + host.Name,
			so: func(ctx context.Context) (bool, error) {
				has, err := w.Rack.HasReceipt(ctx, host)
				return !has, err
			},
			do: func(ctx context.Context) error { return w.Rack.Forget(ctx, host) },
		})
	}
	row, err := w.write(rowOf(r)+w.succession(), func(tables *edit.Edit) error {
		return tables.Replace(host.Name, r.Cells, w.successor)
	})
	if err != nil {
		return nil, err
	}
	w.add(row)
	if err := w.addKey(r); err != nil {
		return nil, err
	}
	if err := w.next(); err != nil {
		return nil, err
	}
	return w.run(ctx, func(ctx context.Context) error { return view.Confirm(ctx, "replace "+host.Name+"?") })
}

// refuseAlive objects if the old machine answers.
func (w *work) refuseAlive(ctx context.Context) error {
	host, o := w.Host, w.seen.Observed[w.Host.Name]
	why := ""
	switch {
	case !w.answers():
	case host.Target.Local:
		why = "is this machine"
	case len(o.Etcd) > 0:
		why = "answers, and has the state of " + strings.Join(o.Etcd, ", ")
	case o.Receipt.HasK3s():
		why = "answers, and was deployed on " + o.Receipt.Time.Format("2006-01-02")
	default:
		for _, unit := range rollout.Units(host) {
			runs, _, err := w.Rack.Unit(ctx, host, unit)
			if err != nil {
				return err
			}
			if runs {
				why = "answers, and runs " + unit
			}
		}
	}
	if why != "" {
		w.object(diag.Error, "machine-answers", host.Name+" "+why+": only a machine that is dead or empty is replaced",
			fmt.Sprintf("switch the old machine off; if it is to leave the plan for good: k3splan decommission %s", host.Name))
	}
	return nil
}

// warnOld asks about cells that describe the old machine.
func (w *work) warnOld(r Replacement) {
	for _, cell := range []struct{ column, value string }{{"serial", w.Host.Serial}, {"mac", w.Host.MAC}} {
		if _, given := r.Cells[cell.column]; !given && cell.value != "" {
			w.object(diag.Warning, "old-machine", fmt.Sprintf("the %s %s of %s is that of the old machine", cell.column, cell.value, w.Host.Name),
				fmt.Sprintf("--%s sets that of the new one, unless it has the same", cell.column))
		}
	}
}

func rowOf(r Replacement) string {
	var cells []string
	for _, column := range []string{"serial", "mac", "interface"} {
		if value, given := r.Cells[column]; given {
			cells = append(cells, column+" "+value)
		}
	}
	if len(cells) == 0 {
		return "keep the row of " + r.Host.Name
	}
	return "write " + strings.Join(cells, ", ") + " into the row of " + r.Host.Name
}

// addKey adds the step that gives the host another ssh key, if it needs one.
func (w *work) addKey(r Replacement) error {
	host := r.Host
	has, err := w.Vault.Has(secrets.HostKeyName(host.Name))
	if err != nil {
		return err
	}
	what, so := "", func() (bool, error) { return false, nil }
	switch {
	case r.NewKey:
		what = "make a new ssh key for " + host.Name
	case !has && r.Keys.Known(host.Name):
		what = "make an ssh key for " + host.Name + ": the one that was adopted is on the old machine only"
		so = func() (bool, error) { return w.Vault.Has(secrets.HostKeyName(host.Name)) }
	default:
		return nil
	}
	w.add(step{
		kind: "ssh-key", what: what,
		so: func(context.Context) (bool, error) { return so() },
		do: func(context.Context) error { return project.NewHostKey(w.Dir, w.Vault, host.Name) },
	})
	return nil
}

// next says how the new machine gets into the rack.
func (w *work) next() error {
	host := w.Host
	w.outcome.Next = append(w.outcome.Next, "k3splan boot-stick "+host.Name+" /dev/sdX   # installs the new machine")
	files := w.Files()
	for _, file := range []struct{ name, next string }{
		{"hardware/" + host.Name + ".nix", "k3splan hardware " + host.Name + "   # once it runs: the present file is about the old machine"},
		{"partitioning/" + host.Name + ".nix", ""},
	} {
		if _, err := fs.Stat(files, file.name); err != nil {
			continue
		}
		if file.next != "" {
			w.outcome.Next = append(w.outcome.Next, file.next)
		} else {
			w.outcome.Left = append(w.outcome.Left, file.name+" was written for the old machine: check its disks before you make the stick")
		}
	}
	switch {
	case host.Server != nil && w.hasCluster():
		w.outcome.Next = append(w.outcome.Next, "k3splan deploy "+host.Name+"   # its server joins etcd again, before any other restarts", "k3splan deploy")
	default:
		w.outcome.Next = append(w.outcome.Next, "k3splan deploy")
	}
	if !w.answers() && len(host.Containers()) > 0 {
		w.outcome.Left = append(w.outcome.Left, "the old machine must not get back to the network before its disks are erased: "+enumerateWould(host))
	}
	return nil
}

func enumerateWould(host *plan.Host) string {
	return enumerate(host.Containers()) + " would start again"
}
