package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/etcd"
	"k3splan/internal/k3s"
	"k3splan/internal/lease"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

func (a *app) etcdCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "etcd",
		Short: "Snapshots of the cluster's etcd: make, list, restore",
		Long: `A snapshot contains everything that the cluster knows: its objects, and its secrets, too. It is made by
a healthy server, kept on this machine in a file that only you can read, and encrypted to
secrets/recipients where age keeps the project's secrets. deploy makes one by itself before a wave
that may change k3s or moves a server.`,
		Example: "  k3splan etcd snapshot\n  k3splan etcd list",
	}, a.etcdSnapshotCommand(), a.etcdListCommand(), a.etcdRestoreCommand())
}

func (a *app) etcdSnapshotCommand() *cobra.Command {
	var to, server string
	command := &cobra.Command{
		Use:   "snapshot",
		Short: "Make a snapshot of etcd and fetch it",
		Long: `Lets a server that is a healthy voter of etcd make a snapshot (k3s etcd-snapshot save), fetches it, and
removes it there. It is complete and its checksum right before it gets its name, .k3splan/snapshots/
CLUSTER-TIME.db, or with age CLUSTER-TIME.db.age. Beside it, NAME.json says when and where it was made,
its checksum, and a salted hash of the server token: without that token k3s cannot read the snapshot.

Prints the path of the file.`,
		Example: "  k3splan etcd snapshot\n  k3splan etcd snapshot --to /media/backup/rack.db",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if command.Flags().Changed("to") && to == "" {
				return usageError(errors.New("--to needs a file"))
			}
			return a.withServers("", func(ctx context.Context, w serverWork) error {
				request := etcd.SaveRequest{To: to, Reason: "by hand", Now: time.Now()}
				if server != "" {
					named, err := w.machines.servers(server)
					if err != nil {
						return err
					}
					request.Server = named[0]
				}
				snapshot, err := w.cluster().Save(ctx, a.user(false), request)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(a.stdout, diag.Printable(snapshot.File))
				return err
			})
		},
	}
	command.Flags().StringVar(&to, "to", "", "write to `FILE`, which must not exist (default: a file in .k3splan/snapshots)")
	command.Flags().StringVar(&server, "server", "", "let the server `NAME`, or the one on this host, make it (default: the init server, else any)")
	_ = command.RegisterFlagCompletionFunc("server", a.completeServers) // the flag exists
	return command
}

// etcdSnapshot is a snapshot in the output of list, for --json.
type etcdSnapshot struct {
	File      string `json:"file"`
	Time      string `json:"time"`
	Cluster   string `json:"cluster"`
	Server    string `json:"server"`
	K3s       string `json:"k3s"`
	Reason    string `json:"reason"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Encrypted bool   `json:"encrypted"`
	// Token is "same" as the project's, "other" or "unknown".
	Token string `json:"token"`
	// Problem is why its description cannot be used, or empty.
	Problem string `json:"problem"`
}

func (a *app) etcdListCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "list",
		Short: "List the snapshots that are kept on this machine",
		Long: `Lists the snapshots in .k3splan/snapshots, the newest last. TOKEN says whether a snapshot was made with
the server token that the project has today; k3s cannot read one that was made with another.`,
		Example: "  k3splan etcd list\n  k3splan etcd list --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			rows, err := a.snapshots()
			if err != nil {
				return err
			}
			return a.print(asJSON, rows, func() (string, error) {
				if len(rows) == 0 {
					a.say("there is no snapshot yet: k3splan etcd snapshot")
					return "", nil
				}
				var table [][]string
				for _, r := range rows {
					when := r.Time
					if t, err := time.Parse(time.RFC3339, r.Time); err == nil {
						when = t.Local().Format("2006-01-02 15:04")
					}
					what := r.Reason
					if r.Problem != "" {
						what = "no description: " + r.Problem
					}
					table = append(table, []string{diag.Printable(filepath.Base(r.File)), when, diag.Printable(r.Server), diag.Printable(r.K3s), fmt.Sprintf("%.1f MB", max(0.1, float64(r.Size)/1e6)), r.Token, diag.Printable(what)})
				}
				return a.table([]string{"FILE", "MADE", "SERVER", "K3S", "SIZE", "TOKEN", "FOR"}, table), nil
			})
		},
	}
	addJSON(command, &asJSON, []etcdSnapshot{})
	return command
}

// snapshots returns those of the project. If the token cannot be read, it is unknown which have the same.
func (a *app) snapshots() ([]etcdSnapshot, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	list, err := etcd.List(dir)
	if err != nil {
		return nil, err
	}
	password := ""
	if len(list) > 0 {
		if _, vault, err := a.vault(a.asker()); err == nil {
			if content, err := vault.Read(string(secrets.InitToken)); err == nil {
				password, _ = secrets.TokenPassword(secrets.InitToken, content)
			}
		}
	}
	rows := []etcdSnapshot{}
	for _, s := range list {
		row := etcdSnapshot{File: s.File, Size: s.FileSize, Encrypted: s.Encrypted, Token: string(s.TokenState(password)), Problem: s.BadDescription}
		if d := s.Description; d != nil {
			row.Time, row.Cluster, row.Server, row.K3s, row.Reason, row.Size, row.SHA256 = d.Time.Format(time.RFC3339), d.Cluster, d.Server, d.K3s, d.Reason, d.Size, d.SHA256
		} else if row.Problem == "" {
			row.Problem = "it is missing"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (a *app) etcdRestoreCommand() *cobra.Command {
	var yes bool
	var request etcd.RestoreRequest
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put the cluster back to a snapshot",
		Long: `Restores the cluster from a snapshot, for a cluster that has lost its quorum or its data. What was
written since the snapshot is lost. FILE is a path, or the name of a snapshot of k3splan etcd list.

  1. k3s is stopped on all servers, and kept from starting again, by a
     reboot, too;
  2. the project's server token is brought to the hosts that have another one;
  3. the snapshot goes to the init server, and k3s restores it there
     (k3s server --cluster-reset);
  4. the init server starts, and must become healthy;
  5. one after the other, each other server is emptied, joins again, and must
     become a voter. What it had before is put aside on its host.

Nothing is changed before the name of the cluster has been typed. Each host records its steps: after a
failure or an interruption at any point, the same command continues. A server that does not answer is
left out, and the same command lets it join later; until then it must not run.

It is refused while the cluster is healthy, and while as many servers do not answer as could still run
the cluster by themselves; --force does it all the same, and begins an interrupted one from the
start. It runs on the init server. To restore on another one, make that the init server in the plan, and bring
the plan to the servers first: k3splan deploy --no-gates --force.`,
		Example: "  k3splan etcd restore rack-20261201T120000Z.db\n  k3splan etcd restore --force /media/backup/rack.db",
		Args:    usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var words []cobra.Completion
			if dir, err := a.dir(); err == nil {
				list, _ := etcd.List(dir)
				for _, s := range list {
					words = append(words, cobra.CompletionWithDesc(filepath.Base(s.File), snapshotWords(s)))
				}
			}
			return words, cobra.ShellCompDirectiveDefault // or any file
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if request.GateTimeout <= 0 {
				return usageError(errors.New("--gate-timeout must be above zero"))
			}
			return a.withServers("", func(ctx context.Context, w serverWork) error {
				request.File = findSnapshot(w.dir, args[0])
				return w.restore(ctx, request, yes)
			})
		},
	}
	f := command.Flags()
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVar(&request.Force, "force", false, "also restore a cluster that is healthy; begin an interrupted restore from the start")
	f.DurationVar(&request.GateTimeout, "gate-timeout", 10*time.Minute, "how long a server may take to become a healthy voter")
	f.DurationVar(&request.GatePause, "gate-pause", 2*time.Second, "how long a gate waits before it asks again")
	_ = f.MarkHidden("gate-pause")
	return command
}

func snapshotWords(s etcd.Snapshot) string {
	if s.Description == nil {
		return ""
	}
	return s.Description.Time.Local().Format("2006-01-02 15:04") + ", " + s.Description.Reason
}

// findSnapshot returns the path of a snapshot that is called by its name alone.
func findSnapshot(dir, name string) string {
	if filepath.Base(name) == name && !fileExists(name) {
		if kept := filepath.Join(dir, filepath.FromSlash(etcd.Folder), name); fileExists(kept) {
			return kept
		}
	}
	return name
}

// cluster is the servers' etcd.
func (w serverWork) cluster() *etcd.Cluster {
	return &etcd.Cluster{Dir: w.dir, Name: k3s.ClusterName(w.plan, w.dir), Plan: w.plan, Vault: w.secrets, Machine: w.ssh.Machines(remote.DeployUser)}
}

// restore takes the lease, if that can be had, and restores.
func (w serverWork) restore(ctx context.Context, request etcd.RestoreRequest, yes bool) error {
	held, err := w.lease(ctx, w.ssh, "k3splan etcd restore")
	switch {
	case err == nil:
		defer held.Release()
		request.Renew = held.Renew
	case lease.IsHeld(err) || ctx.Err() != nil || !request.Force:
		return diag.WithHint(err, diag.HintOf(err)+"\nif most servers' hosts are lost, --force goes on without the lease")
	default:
		w.app.warn("%v; going on without it (--force)", err)
	}
	request.Now = time.Now()
	return w.cluster().Restore(ctx, w.app.user(yes), request)
}
