package rollout

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

// Driver carries out the steps of a rollout with Colmena and ssh.
type Driver struct {
	// Before is what was known before the rollout.
	Before Situation
	// Agreed are what the user has forced.
	Agreed []objection
	// Systems are those of the hosts, Extra the user's arguments for Colmena, and Env is added to its environment.
	Systems *systems
	Extra   []string
	Env     []string
	// Machine returns how a host is reached; Other, if it is not nil, how else it may be reached.
	Machine, Other func(host *plan.Host) remote.Machine
	// MayReboot are hosts that may be rebooted where their new system cannot be activated while the old one
	// runs.
	MayReboot []string
	// Renew makes sure that no other operator changes the rack; it may be nil.
	Renew func(context.Context) error
	// TakeSnapshot makes a snapshot of etcd; it may be nil if no wave asks for one.
	TakeSnapshot func(ctx context.Context, why string) error
	// Inputs and Secrets go into the receipts.
	Inputs  map[string]fingerprint.Inputs
	Secrets map[string]fingerprint.Contents
	// Logs is a folder; a host's log is NAME.log in it.
	Logs string
	// GateTimeout limits how long the gate of a host waits.
	GateTimeout time.Duration
	// Pause is between two questions of a gate.
	Pause time.Duration

	// Previews are what new systems change, by host; what their activation does to units is added before it.
	Previews   map[string]Preview
	previewing sync.Mutex

	renewing sync.Mutex
	renewed  time.Time // when Renew was called last

	building sync.Mutex
	built    map[string]string // host -> the system that was built on it
}

var _ Steps = (*Driver)(nil)

// builtOnTarget is what Colmena says of a system that a host has built itself (deployment.buildOnTarget). It keeps
// no link to that, as its store path is not on this machine.
var builtOnTarget = regexp.MustCompile(`(\S+) \| Built "(/[^"]+)" on target node$`)

// result returns the store path of the system that was built for a host, or "" if none was.
func (d *Driver) result(host string) string {
	d.building.Lock()
	defer d.building.Unlock()
	return cmp.Or(d.built[host], d.Systems.result(host))
}

// note keeps what a line of Colmena says about a system.
func (d *Driver) note(line string) {
	if found := builtOnTarget.FindStringSubmatch(line); found != nil {
		d.building.Lock()
		defer d.building.Unlock()
		if d.built == nil {
			d.built = map[string]string{}
		}
		d.built[found[1]] = found[2]
	}
}

// LogFile is the path of Colmena's output about a host.
func (d *Driver) LogFile(host string) string { return filepath.Join(d.Logs, host+".log") }

// reach returns how the host answers, also to a script of the caller.
func (d *Driver) reach(ctx context.Context, h *plan.Host, script string, words ...string) (remote.Machine, Observed) {
	machine := d.Machine(h)
	o := observeAlso(ctx, askLimit, machine, script, words...)
	if o.Unreachable != "" && d.Other != nil {
		other := d.Other(h)
		if o := observeAlso(ctx, askLimit, other, script, words...); o.Unreachable == "" {
			return other, o
		}
	}
	return machine, o
}

// disconnect makes the next connection to a host show whether one can still log in, after what may have changed that.
func (d *Driver) disconnect(h *plan.Host) {
	d.Machine(h).Disconnect()
	if d.Other != nil {
		d.Other(h).Disconnect()
	}
}

const askLimit = 30 * time.Second

// Build builds the systems of hosts and touches none of them.
func (d *Driver) Build(ctx context.Context, proposal Proposal, progress ask.Progress) error {
	hosts := slices.DeleteFunc(proposal.hosts(), func(host string) bool { return !proposal.Work[host].System })
	if len(hosts) == 0 {
		return nil
	}
	return d.Systems.build(ctx, hosts, progress, func(hive *colmena.Hive, args []string, say func(line string)) error {
		return d.colmena(buildLog(d.Logs), args, hive, say)
	})
}

// Apply has Colmena bring the new system, or only the secrets, and makes changed secrets take
// effect.
func (d *Driver) Apply(ctx context.Context, host string, work Work, say Say) (string, error) {
	h := d.Before.Plan.Host(host)
	if work.New && len(h.Containers()) > 0 {
		// perhaps the same machine was decommissioned before
		if _, now := d.reach(ctx, h, releaseScript, Units(h)...); now.Unreachable != "" {
			return "", fmt.Errorf("preparing %s: %s", host, now.Unreachable)
		}
	}
	if len(work.Secrets) > 0 {
		if err := rememberAttempt(ctx, d.Machine(h), d.Secrets[host]); err != nil {
			return "", fmt.Errorf("preparing %s: %s", host, reason(err))
		}
	}
	if h.Server != nil && h.Server.Role == plan.Init && slices.ContainsFunc(d.Agreed, func(o objection) bool { return o.Code == "second-cluster" }) {
		if _, o := d.reach(ctx, h, letFoundScript); o.Unreachable != "" {
			return "", fmt.Errorf("preparing %s: %s", host, o.Unreachable)
		}
	}
	switches, err := true, error(nil)
	if work.System && colmena.Goal(d.Extra) == "switch" {
		if switches, err = d.switches(ctx, h); err != nil {
			return "", err
		}
	}
	if work.System && switches && colmena.Goal(d.Extra) == "switch" {
		d.foresee(ctx, h, say)
	}
	hive := d.Systems.hive(host)
	var args []string
	switch {
	case !switches:
		args = colmena.ApplyOne(hive.File, host, colmena.WithGoal(d.Extra, "boot"))
	case h.Target.Local:
		// on this machine Colmena uploads secrets together with a system only; that is the same then
		args = colmena.ApplyLocal(hive.File, host, d.Extra)
	case work.System:
		args = colmena.ApplyOne(hive.File, host, d.Extra)
	default:
		args = colmena.UploadKeys(hive.File, host, nil)
	}
	phase := "uploading secrets"
	if work.System {
		phase = "copying, activating"
		if d.Systems.hosts[host] == nil {
			phase = "evaluating, building, activating"
		}
	}
	say(phase, "")
	err = d.colmena(d.LogFile(host), args, hive, func(line string) { say(phase, line) })
	d.disconnect(h)
	if err != nil {
		switch check := refusedBy(err); {
		case check == "":
			return "", err
		case check != inhibitorsCheck:
			return "", diag.WithHint(err, "the system itself refuses its activation, by system.preSwitchChecks."+check+" of its configuration")
		case !slices.Contains(d.MayReboot, host) || h.Target.Local || colmena.Goal(d.Extra) != "switch":
			return "", needsBoot(err, host)
		}
		phase, switches = "setting the next boot", false
		say(phase, "")
		args = colmena.ApplyOne(hive.File, host, colmena.WithGoal(d.Extra, "boot"))
		if err := d.colmena(d.LogFile(host), args, hive, func(line string) { say(phase, line) }); err != nil {
			return "", err
		}
	}
	if !switches {
		return d.result(host), d.reboot(ctx, h, say) // which makes secrets take effect as well
	}
	system := d.Before.Observed[host].System
	if work.System {
		system = d.result(host)
	}
	if system != "" && len(work.Secrets) == 0 {
		return system, nil
	}
	machine, now := d.reach(ctx, h, "")
	if now.Unreachable != "" {
		return "", fmt.Errorf("%s does not answer after the activation: %s", host, now.Unreachable)
	}
	if system == "" {
		system = now.Profile // Colmena sets it right before it activates
	}
	if len(work.Secrets) == 0 {
		return system, nil
	}
	say("applying "+secretWords(work.Secrets), "")
	script := applySecrets(h, work.Secrets, !work.System)
	if !work.System && work.Restarts() && d.Before.Health[host].Ready && !d.mayLoseQuorum() {
		script = othersScript + script
	}
	out, err := machine.Script(ctx, script, d.Before.runs(host))
	d.disconnect(h)
	d.log(host, out)
	if err != nil {
		return "", fmt.Errorf("applying %s on %s: %s", secretWords(work.Secrets), host, reason(err))
	}
	return system, nil
}

// letFoundScript lets an init server without a state found a cluster although another server answers, for an
// hour (templates/modules/container.nix, places.nix).
const letFoundScript = "(umask 077; mkdir -p /var/lib/k3splan/server; touch /var/lib/k3splan/server/found)\n"

// rememberAttempt lets a host remember which secrets are about to come.
func rememberAttempt(ctx context.Context, machine remote.Machine, secrets fingerprint.Contents) error {
	script, err := receipt.AttemptScript(secrets)
	if err == nil {
		_, err = machine.Script(ctx, script)
	}
	return err
}

func secretWords(kinds []string) string {
	words := make([]string, len(kinds))
	for i, kind := range kinds {
		words[i] = SecretWord(kind)
	}
	return text.Enumerate(words)
}

// restartScript defines the command "restart FOLDER UNIT [COMMAND…]", which restarts a unit on the machine that
// COMMAND leads to. One that began to start after the tokens in FOLDER came has read them: the activation has
// started or restarted it, and a new member of etcd must not be stopped while it joins. Times are ages in hundredths of
// a second: clocks of machines jump.
const restartScript = `restart() {
  files=$1 unit=$2
  shift 2
  written=$(LC_ALL=C stat -c %.2Y "$files"/*token 2> /dev/null | sort -n | tail -n 1 | tr -d .)
  began=$("$@" systemctl show "$unit" --property InactiveExitTimestampMonotonic --value < /dev/null | tr -d '\r')
  now=$(date +%s%2N) up=$(cut -d ' ' -f 1 /proc/uptime | tr -d .)
  if [ $((up - ${began:-0} / 10000)) -lt $((now - ${written:-$now})) ]; then return; fi
  "$@" systemctl restart "$unit" < /dev/null
}`

// applySecrets returns the script that makes changed files take effect: uploading replaces the files
// and nothing else. A new system was activated already, but not in the container.
func applySecrets(h *plan.Host, kinds []string, onHost bool) string {
	lines := []string{"set -e"}
	if slices.Contains(kinds, "agent-token") || slices.Contains(kinds, serverToken) {
		lines = append(lines, restartScript)
	}
	add := func(line string) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	const activate = "/run/current-system/bin/switch-to-configuration test"
	for _, kind := range kinds {
		switch kind {
		case "passwd":
			// users get their passwords at an activation
			if onHost {
				add(activate)
			}
			if h.Server != nil {
				add("nixos-container run " + h.Server.Name + " -- " + activate)
			}
		case "agent-token", serverToken:
			// k3s reads tokens at its start
			if h.Server != nil {
				add("restart /var/lib/k3splan/server k3s.service nixos-container run " + h.Server.Name + " --")
			}
			if h.Agent != nil {
				add("restart /var/lib/k3splan/agent podman-" + h.Agent.Name + ".service")
			}
		case "ssh-host-key":
			add("systemctl restart sshd.service")
		default:
			if onHost {
				add(activate)
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// colmena runs Colmena with its output in a log.
func (d *Driver) colmena(log string, args []string, hive *colmena.Hive, say func(line string)) error {
	file, err := files.Append(log)
	if err != nil {
		return fmt.Errorf("writing the log: %w", err)
	}
	defer file.Close()
	fmt.Fprintf(file, "$ colmena %s\n", strings.Join(args, " "))
	last := &lastLines{say: func(line string) { d.note(line); say(line) }}
	out := io.MultiWriter(run.Capped(file, maxLog), last)
	// its own context: Colmena gets the user's signals, and is waited for
	err = run.Run(context.Background(), run.Command{
		Program: d.Systems.program, Args: args, Env: slices.Concat(hive.Env, d.Env), Stdout: &guarded{to: out}, Stderr: &guarded{to: out},
	})
	if err == nil {
		return nil
	}
	if lines := last.end(); lines != "" {
		return fmt.Errorf("%w\n%s", err, lines)
	}
	return err
}

func (d *Driver) log(host, text string) {
	if file, err := files.Append(d.LogFile(host)); err == nil {
		_, _ = io.WriteString(file, text)
		_ = file.Close()
	}
}

// guarded is one place that two streams write to.
type guarded struct{ to io.Writer }

var writing sync.Mutex

func (g *guarded) Write(p []byte) (int, error) {
	writing.Lock()
	defer writing.Unlock()
	return g.to.Write(p)
}

// lastLines keeps the end of an output, and passes each line on.
type lastLines struct {
	say   func(string)
	part  []byte
	lines []string
}

const keptLines = 6

// maxLog is how much of one run of Colmena is kept, and maxLine how much of a line is shown, in bytes.
const (
	maxLog  = 64 << 20
	maxLine = 4 << 10
)

var backtrace = regexp.MustCompile(`^(Backtrace:|ERROR -+|[0-9]+: \S*[:_<]\S*.*|[0-9]+: main|at \S+:[0-9]+(:[0-9]+)?)$`)

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

func (l *lastLines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexAny(l.part, "\n\r")
		if i < 0 {
			l.part = l.part[:min(len(l.part), maxLine)] // the rest of a longer line is dropped
			return len(p), nil
		}
		line := strings.TrimSpace(escapes.ReplaceAllString(strings.ToValidUTF8(string(l.part[:i]), ""), ""))
		l.part = l.part[i+1:]
		if line == "" {
			continue
		}
		l.say(line)
		if backtrace.MatchString(line) {
			continue // Colmena ends every failure with one
		}
		l.lines = append(l.lines, line)
		if len(l.lines) > keptLines {
			l.lines = l.lines[1:]
		}
	}
}

func (l *lastLines) end() string { return strings.Join(l.lines, "\n") }

// Record writes the receipt.
func (d *Driver) Record(ctx context.Context, host, system string) error {
	r, err := receipt.New(d.Before.Plan, system, d.Inputs[host], d.Secrets[host])
	if err != nil {
		return err
	}
	return d.write(ctx, host, r)
}

// write writes a receipt to a host.
func (d *Driver) write(ctx context.Context, host string, r *receipt.Receipt) error {
	script, err := r.WriteScript()
	if err != nil {
		return err
	}
	if _, err := d.Machine(d.Before.Plan.Host(host)).Script(ctx, script); err != nil {
		return fmt.Errorf("writing the receipt of %s: %s", host, reason(err))
	}
	return nil
}
