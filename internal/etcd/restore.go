package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
	"k3splan/internal/text"
)

// RestoreRequest is what the cluster is to be restored from, and how.
type RestoreRequest struct {
	File string
	// Force also restores a cluster that is healthy, and does whatever else is refused but can be done. A
	// restore that was interrupted begins from the start.
	Force bool
	// Renew makes sure that no other operator changes the rack; it may be nil.
	Renew func(context.Context) error
	// GateTimeout limits how long a server may take to become a ready voter, and GatePause is between two
	// questions; 0 is 10 minutes and 2 seconds.
	GateTimeout, GatePause time.Duration
	// Now names the restore.
	Now time.Time
}

// resetTime is how long k3s may take to put a snapshot in place.
const resetTime = 20 * time.Minute

// Restore puts the cluster back to a snapshot. All servers are stopped; k3s restores the snapshot on the init
// server; the others are emptied and join again, one after the other. Every host records its steps, and k3s
// does not start on a host in the middle of them, whatever happens to the machine. The same call continues a
// restore that was interrupted.
func (c *Cluster) Restore(ctx context.Context, user ask.User, r RestoreRequest) error {
	snapshot, err := Open(r.File)
	if err != nil {
		return err
	}
	sum, size, err := snapshot.Verify(c.Vault)
	if err != nil {
		return err
	}
	password, err := c.token()
	if err != nil {
		return err
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	w.request, w.snapshot, w.sum, w.size, w.password, w.user = r, snapshot, sum, size, password, user
	w.begin()
	if err := w.refusals().err(r.Force); err != nil {
		return err
	}
	if err := user.Type(ctx, w.question(), c.Name); err != nil {
		return err
	}
	return w.carryOut(ctx)
}

// work is one run of Restore.
type work struct {
	*Cluster
	request  RestoreRequest
	snapshot Snapshot
	sum      string
	size     int64
	password string
	user     ask.User

	situation rollout.Situation
	// views are those of the hosts that answer, by name.
	views map[string]view
	// id names the restore, and continued reports whether it was begun before.
	id        string
	continued bool
}

// look asks all hosts what there is.
func (c *Cluster) look(ctx context.Context) (*work, error) {
	w := &work{Cluster: c, views: map[string]view{}}
	if c.Plan.InitServer() == nil {
		return nil, errors.New("the plan has no k3s server")
	}
	var err error
	if w.situation, err = rollout.LookAtAll(ctx, c.Plan, c.Machine); err != nil {
		return nil, err
	}
	for _, server := range c.Plan.Servers() {
		o := w.situation.Observed[server.Host.Name]
		if o.Unreachable != "" {
			continue
		}
		out, err := c.Machine(server.Host).Script(ctx, lookScript, server.Name)
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", server.Host.Name, err)
		}
		w.views[server.Host.Name] = parseView(out)
	}
	return w, nil
}

// begin finds out whether a restore of this snapshot was begun and not finished; otherwise it is a new one.
func (w *work) begin() {
	if open := w.open(); open.sum == w.sum && !w.request.Force {
		w.id, w.continued = open.id, true
		return
	}
	w.id = w.request.Now.UTC().Format("20060102t150405z")
}

// open returns the record of a restore that is not finished, or the zero record. The init server's counts;
// if it has none, because its machine was replaced for example, that of another server that is stopped.
func (w *work) open() record {
	if r := w.views[w.Plan.InitServer().Host.Name].record; r.id != "" {
		if r.stage == finished {
			return record{}
		}
		return r
	}
	for _, server := range w.others() {
		v := w.views[server.Host.Name]
		if r := v.record; r.id != "" && (v.held || r.stage != started) {
			return record{id: r.id, sum: r.sum}
		}
	}
	return record{}
}

// stage returns how far this restore is on a host.
func (w *work) stage(host *plan.Host) stage {
	if r := w.views[host.Name].record; w.continued && r.id == w.id {
		return r.stage
	}
	return none
}

// others are the servers that join the init server, in the order of the plan.
func (w *work) others() []*plan.Container {
	return slices.DeleteFunc(slices.Clone(w.Plan.Servers()), func(s *plan.Container) bool { return s == w.Plan.InitServer() })
}

// answers reports whether a server's host was there when it was asked.
func (w *work) answers(server *plan.Container) bool {
	_, there := w.views[server.Host.Name]
	return there
}

// refusal is a reason against a restore.
type refusal struct {
	message, hint string
	// final refusals cannot be forced: the restore could not succeed.
	final bool
}

type refusals []refusal

// err returns those that count as an error, or nil.
func (rs refusals) err(force bool) error {
	var messages, hints []string
	for _, r := range rs {
		if r.final || !force {
			messages, hints = append(messages, r.message), append(hints, r.hint)
		}
	}
	if len(messages) == 0 {
		return nil
	}
	return diag.WithHint(errors.New("refused: "+strings.Join(messages, "\n  ")), strings.Join(slices.Compact(hints), "\n"))
}

// refusals returns what speaks against the restore; nothing has been changed yet.
func (w *work) refusals() (list refusals) {
	refuse := func(final bool, hint, format string, args ...any) {
		list = append(list, refusal{fmt.Sprintf(format, args...), hint, final})
	}
	init := w.Plan.InitServer()
	if w.snapshot.TokenState(w.password) == TokenOther {
		refuse(false, w.tokenHint(), "the snapshot was made when the cluster had another server token than %s today: k3s could not read it", w.Vault.At(string(secrets.InitToken)))
	}
	if w.password == "" {
		refuse(true, "k3splan etcd list shows which snapshots were made with which token", "%s is missing: k3s cannot read a snapshot without it", w.Vault.At(string(secrets.InitToken)))
	}
	if !w.answers(init) {
		refuse(true, "bring it up; to restore on another server, make that one the init server ("+init.Where("type")+") and deploy it: k3splan deploy --no-gates --force",
			"the init server's host %s does not answer: %s", init.Host.Name, w.situation.Observed[init.Host.Name].Unreachable)
	}
	var away []string
	for _, server := range w.Plan.Servers() {
		host := server.Host.Name
		v, there := w.views[host]
		runs := w.situation.Runs(host)
		switch {
		case !there && server != init:
			away = append(away, host)
		case !there:
		case runs != server.Name:
			refuse(true, "deploy the plan first, or let it name the server that is there", "%s runs the server %s, and the plan has %s there", host, runs, server.Name)
		case !v.container:
			refuse(true, "deploy it first, so that there is something to restore: k3splan deploy --force "+host, "%s has no container %s: its server was never deployed", host, server.Name)
		case v.loaded && server == init && !v.founds:
			refuse(true, deployFirst(w.Plan), "the server on %s is the init server in the plan, and was not deployed as such", host)
		case v.loaded && server != init && v.founds:
			refuse(true, deployFirst(w.Plan), "the server on %s was deployed as the init server: with an empty state it would found another cluster", host)
		case v.joins != "" && !joinsServer(v.joins, init):
			refuse(true, deployFirst(w.Plan), "the server on %s was deployed to join %s, and not the init server %s (%s)", host, v.joins, init.Name, init.Address)
		}
	}
	for _, host := range w.Plan.Hosts {
		if o := w.situation.Observed[host.Name]; host.Server == nil && o.Unreachable == "" && o.Receipt.ServerName() != "" {
			refuse(true, "decommission it first, or put it back into the plan", "%s still runs the server %s, which is not in the plan", host.Name, o.Receipt.ServerName())
		}
	}
	if w.continued {
		return list
	}
	if needed, _ := plan.Quorum(len(w.Plan.Servers())); len(away) >= needed && len(away) > 0 {
		refuse(false, "bring them up, or make sure that they are switched off and stay so until the same command has run again; then --force",
			"%s: no answer, and together they could still run the cluster: there would be two", text.Enumerate(away))
	}
	if w.situation.Healthy() {
		refuse(false, "a restore loses what was written since the snapshot; if that is what you want: --force", "the cluster is healthy")
	}
	return list
}

func deployFirst(p *plan.Plan) string {
	var hosts []string
	for _, server := range p.Servers() {
		hosts = append(hosts, server.Host.Name)
	}
	return "bring the plan to the servers first, whatever state they are in: k3splan deploy --no-gates --force " + strings.Join(hosts, " ")
}

// joinsServer reports whether a URL is that of a server.
func joinsServer(text string, server *plan.Container) bool {
	u, err := url.Parse(text)
	return err == nil && u.Hostname() == server.Address.String()
}

// tokenHint says where the token of the snapshot is, if the project still has it.
func (w *work) tokenHint() string {
	names, err := w.Vault.List()
	if err != nil {
		return ""
	}
	for _, name := range names {
		if !strings.HasPrefix(name, secrets.Retired+"/"+string(secrets.InitToken)) {
			continue
		}
		content, err := w.Vault.Read(name)
		if err != nil {
			continue
		}
		if password, err := secrets.TokenPassword(secrets.InitToken, content); err == nil && w.snapshot.TokenState(password) == TokenSame {
			return fmt.Sprintf("it is in %s: put its content into %s (k3splan secrets edit --force %s); restore brings it to the hosts",
				w.Vault.At(name), w.Vault.At(string(secrets.InitToken)), secrets.InitToken)
		}
	}
	return fmt.Sprintf("put the token of that time into %s; restore brings it to the hosts", w.Vault.At(string(secrets.InitToken)))
}

// question says what is about to happen.
func (w *work) question() string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	init := w.Plan.InitServer()
	if w.continued {
		say("The restore of %s that was begun at %s is continued.", w.snapshot.File, w.id)
	}
	if d := w.snapshot.Description; d != nil {
		say("%s was made at %s on %s (k3s %s): all that was written to the cluster since is lost.", w.snapshot.File, d.Time.Local().Format("2006-01-02 15:04:05"), d.Server, d.K3s)
		if version := w.situation.Health[init.Host.Name].Version; version != "" && version != d.K3s {
			say("%s runs k3s %s.", init.Name, version)
		}
	} else {
		reason := "it has no description"
		if w.snapshot.BadDescription != "" {
			reason = "its description cannot be used: " + w.snapshot.BadDescription
		}
		say("When %s was made, by which cluster, and with which token is unknown (%s). All that was written since is lost.", w.snapshot.File, reason)
	}
	var join, away []string
	for _, server := range w.others() {
		if w.answers(server) {
			join = append(join, server.Name)
		} else {
			away = append(away, server.Host.Name)
		}
	}
	say("All servers are stopped, %s gets the snapshot%s.", init.Name, map[bool]string{true: ", and " + text.Enumerate(join) + " join again with an empty state", false: ""}[len(join) > 0])
	if len(away) > 0 {
		say("%s: no answer. Its server must not run before this command has run again: it belongs to the cluster as it was.", text.Enumerate(away))
	}
	return strings.Join(append(lines, "restore the cluster?"), "\n")
}

// carryOut does what is left to be done.
func (w *work) carryOut(ctx context.Context) (err error) {
	servers := append(slices.Clone(w.others()), w.Plan.InitServer())
	progress := w.user.Progress(len(servers))
	defer progress.Stop()
	begun := false
	defer func() {
		if err != nil && begun {
			err = diag.WithHint(err, joined(diag.HintOf(err), "servers that are stopped stay so; the same command continues: k3splan etcd restore "+w.request.File))
		}
	}()
	init := w.Plan.InitServer()
	// the init server last: until then, a majority may still answer questions
	for _, server := range servers {
		if !w.answers(server) || w.stage(server.Host).atLeast(stopped) {
			continue
		}
		progress.Step(server.Host.Name, "stopping k3s", "")
		begun = true
		if err := w.step(ctx, server, stopScript, stopped); err != nil {
			return err
		}
	}
	begun = true
	if !w.stage(init.Host).atLeast(restored) {
		if err := w.bringToken(ctx); err != nil {
			return err
		}
		progress.Step(init.Host.Name, "uploading the snapshot", "")
		if err := w.upload(ctx, init); err != nil {
			return err
		}
		progress.Step(init.Host.Name, "restoring the snapshot", "")
		if err := w.step(ctx, init, resetScript, restored, w.sum); err != nil {
			return err
		}
	}
	if err := w.start(ctx, progress, init, "init"); err != nil {
		return err
	}
	if err := w.forgetPasswords(ctx, init); err != nil {
		return err
	}
	var left []string
	for _, server := range w.others() {
		if !w.answers(server) {
			left = append(left, server.Host.Name)
			continue
		}
		if !w.stage(server.Host).atLeast(emptied) {
			progress.Step(server.Host.Name, "putting its state aside", "")
			if err := w.step(ctx, server, emptyScript, emptied, w.id); err != nil {
				return err
			}
		}
		if err := w.start(ctx, progress, server, "joins"); err != nil {
			return err
		}
	}
	progress.Stop()
	if len(left) > 0 {
		return fmt.Errorf("the cluster is restored, but %s did not answer and must join again", text.Enumerate(left))
	}
	if err := w.step(ctx, init, recordScript, finished); err != nil {
		return err
	}
	w.user.Say("the cluster %s is restored from %s", w.Name, w.snapshot.File)
	if len(w.others()) > 0 {
		w.user.Say("what the others had before is on their hosts, in %s: remove it when it is not needed any more", "/var/lib/nixos-containers/NAME"+k3sFolder+"/before-restore-"+w.id)
	}
	w.user.Say("k3splan status shows how the agents are; one that is not ready was new, or on another machine, when the snapshot was made: it registers again when it is restarted")
	return nil
}

func joined(a, b string) string { return strings.Trim(a+"\n"+b, "\n") }

// step runs a script for a server that ends with a record of the stage.
func (w *work) step(ctx context.Context, server *plan.Container, script string, to stage, words ...string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.request.Renew != nil {
		if err := w.request.Renew(ctx); err != nil {
			return err
		}
	}
	machine := w.Machine(server.Host)
	machine.Timeout = resetTime
	r := record{w.id, w.sum, to}
	if _, err := machine.Script(ctx, script, append([]string{server.Name, r.String()}, words...)...); err != nil {
		return w.scrub(fmt.Errorf("the server %s was not %s: %w", server.Name, to, err))
	}
	v := w.views[server.Host.Name]
	v.record = r
	w.views[server.Host.Name], w.continued = v, true
	return nil
}

// scrub removes the token from an error with k3s's own words.
func (w *work) scrub(err error) error {
	if w.password == "" || !strings.Contains(err.Error(), w.password) {
		return err
	}
	return diag.WithHint(errors.New(strings.ReplaceAll(err.Error(), w.password, "[token]")), diag.HintOf(err))
}

// start lets a server start and waits until it is a ready voter.
func (w *work) start(ctx context.Context, progress ask.Progress, server *plan.Container, how string) error {
	host := server.Host.Name
	if !w.stage(server.Host).atLeast(started) {
		progress.Step(host, "starting k3s", "")
		if err := w.step(ctx, server, startScript, started, how); err != nil {
			return err
		}
	}
	timeout := w.request.GateTimeout
	if timeout == 0 {
		timeout = 10 * time.Minute
	}
	await := rollout.Await{
		Timeout: timeout, Pause: w.request.GatePause,
		Also: func(h rollout.Health) string {
			if h.Unnamed > 0 || len(h.Learners) > 0 {
				return "a member of etcd does not vote yet"
			}
			return ""
		},
		Say: func(phase, detail string) { progress.Step(host, phase, detail) },
	}
	if err := await.Server(ctx, w.Machine(server.Host), server.Name); err != nil {
		return diag.WithHint(w.scrub(err), "see its journal: k3splan ssh "+host+"; --force begins the restore from the start")
	}
	progress.Done(host, map[string]string{"init": "restored and ready", "joins": "joined again and ready"}[how])
	return nil
}

// forgetPasswords lets agents register whose machines were replaced after the snapshot: k3s would refuse them, as it
// knows the passwords of the machines before.
func (w *work) forgetPasswords(ctx context.Context, init *plan.Container) error {
	var agents []string
	for _, host := range w.Plan.Hosts {
		if host.Agent != nil {
			agents = append(agents, host.Agent.Name)
		}
	}
	return k3s.Server{Container: init.Name, Run: w.Machine(init.Host).Run}.ForgetPasswords(ctx, agents...)
}

// upload brings the snapshot to the init server, decrypted on the way.
func (w *work) upload(ctx context.Context, init *plan.Container) error {
	machine := w.Machine(init.Host)
	machine.Timeout = transferTime
	in, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, err := w.snapshot.copyTo(out, w.Vault)
		out.CloseWithError(err)
	}()
	err := machine.Pipe(ctx, in, io.Discard, "sh", "-c", uploadScript, "sh", init.Name)
	_ = in.Close()
	<-ended
	if err != nil {
		return fmt.Errorf("bringing the snapshot to %s: %w", init.Host.Name, err)
	}
	return nil // whether it arrived whole is checked there
}

// bringToken brings the project's server token to all hosts where it is another one.
func (w *work) bringToken(ctx context.Context) error {
	return k3s.BringToken(ctx, w.Plan, w.Vault, w.run, func(host string, err error) {
		if err != nil {
			w.user.Warn("%s did not get the server token: %s; k3splan token push brings it later", host, remote.Reason(err))
			return
		}
		w.user.Say("%s got the server token of the project", host)
	})
}
