package rollout

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/fingerprint"
	"k3splan/internal/k3s"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
)

// Observed is what a host reports about itself.
type Observed struct {
	// Unreachable says why the host did not answer, or why what answers cannot be deployed to; else empty.
	Unreachable string
	// Hint says what to do about Unreachable, or is empty.
	Hint string
	// System, Profile and Booted are store paths: what runs, what is to run after the next boot, and
	// what was booted. They are empty where there is no NixOS.
	System, Profile, Booted string
	// Generation is the number of the profile's generation, or 0.
	Generation int
	// NixOS is the running system's version, and OS the name of whatever operating system runs.
	NixOS, OS string
	// RebootFor are the parts of the running system that take effect at a boot alone and differ from what
	// was booted: "kernel", "systemd" and the like.
	RebootFor []string
	// BootID is another one after each boot.
	BootID string
	// Failed are systemd units.
	Failed []string
	// Differs says how the containers that run differ from those that were deployed, as far as a gate asked.
	Differs []string
	// LAN reports whether the host has its macvlan interface.
	LAN bool
	// Etcd are the names of server containers that have a state of etcd.
	Etcd []string
	// Held are the names of server containers whose k3s does not start, because a restore of etcd is not
	// finished.
	Held []string
	// Attempt seals the secrets of a deployment that did not end; it is nil if the last one did.
	Attempt *fingerprint.Secrets
	// Rollback is the generation that the host was about to be brought back to, if that did not end; else 0.
	Rollback int
	// Receipt is nil without a readable one; BadReceipt says why there is one that cannot be read.
	Receipt    *receipt.Receipt
	BadReceipt string
}

// HoldFile is the name of the drop-in that keeps a server's k3s from starting while package etcd restores a
// snapshot.
const HoldFile = "zz-k3splan-hold.conf"

// factsScript prints a line for each fact, and then the receipt. It starts few programs: every host runs it several
// times in a deployment, and most of them for nothing else.
const factsScript = `
link() { printf '%s ' "$1"; readlink "$2" "$3" 2> /dev/null || echo; }
first() { line=; if [ -r "$2" ]; then read -r line < "$2" || true; fi; echo "$1 $line"; }
link system -f /run/current-system
link booted -f /run/booted-system
link profile -f /nix/var/nix/profiles/system
link generation -- /nix/var/nix/profiles/system
first boot /proc/sys/kernel/random/boot_id
echo "os $(. /etc/os-release 2> /dev/null && echo "$PRETTY_NAME")"
first nixos /run/current-system/nixos-version
systemctl list-units --state=failed --no-legend --plain --full 2> /dev/null | while read -r unit rest; do echo "failed $unit"; done
if [ -e /sys/class/net/k3splan-lan ]; then echo "lan yes"; fi
` + rebootScript + receipt.ReadAttemptScript + receipt.ReadRollbackScript + `for state in /var/lib/nixos-containers/*/var/lib/rancher/k3s/server/db/etcd; do
  if [ -d "$state" ]; then name=${state#/var/lib/nixos-containers/}; echo "etcd ${name%%/*}"; fi
done
for hold in /var/lib/nixos-containers/*/etc/systemd/system.control/k3s.service.d/` + HoldFile + `; do
  if [ -e "$hold" ]; then name=${hold#/var/lib/nixos-containers/}; echo "held ${name%%/*}"; fi
done
echo receipt
` + receipt.ReadScript + `
`

// errIncomplete is an answer that was cut short.
var errIncomplete = errors.New("incomplete response")

// observe asks a host. It never fails: a host that does not answer in time is an observation.
func observe(ctx context.Context, limit time.Duration, machine remote.Machine) Observed {
	return observeAlso(ctx, limit, machine, "")
}

// observeAlso is observe with a script of its own before, in the same connection.
func observeAlso(ctx context.Context, limit time.Duration, machine remote.Machine, script string, words ...string) Observed {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := machine.Script(limited, script+factsScript, words...)
	switch {
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		return Observed{Unreachable: fmt.Sprintf("no answer in %s", limit)}
	case err != nil:
		return Observed{Unreachable: reason(err), Hint: diag.HintOf(err)}
	}
	observed, err := parseObserved(out)
	switch {
	case err != nil:
		return Observed{Unreachable: err.Error()}
	case observed.System == "": // nothing is known of what it is, and no system can be activated there
		return Observed{Unreachable: "it runs " + cmp.Or(observed.OS, "an unknown operating system") + " and not NixOS: a boot stick installs it"}
	}
	return observed
}

// reason is why a host did not do what it should, in one line. Whoever shows it names the host.
func reason(err error) string { return remote.Reason(err) }

func parseObserved(out string) (Observed, error) {
	head, kept, whole := strings.Cut(out, "\nreceipt\n")
	if !whole {
		return Observed{}, errIncomplete
	}
	var o Observed
	lines := bufio.NewScanner(strings.NewReader(head))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "system":
			o.System = storePath(value)
		case "booted":
			o.Booted = storePath(value)
		case "profile":
			o.Profile = storePath(value)
		case "generation":
			number, _ := strings.CutPrefix(value, "system-")
			o.Generation, _ = strconv.Atoi(strings.TrimSuffix(number, "-link"))
		case "boot":
			o.BootID = value
		case "reboot":
			o.RebootFor = append(o.RebootFor, value)
		case "os":
			o.OS = value
		case "nixos":
			o.NixOS = value
		case "failed":
			o.Failed = append(o.Failed, value)
		case "attempt":
			o.Attempt = receipt.ParseAttempt(value)
		case "rollback":
			o.Rollback, _ = strconv.Atoi(value)
		case "differs":
			o.Differs = append(o.Differs, value)
		case "lan":
			o.LAN = true
		case "etcd":
			o.Etcd = append(o.Etcd, value)
		case "held":
			o.Held = append(o.Held, value)
		}
	}
	if kept = strings.TrimSpace(kept); kept != "" {
		r, err := receipt.Parse([]byte(kept))
		if err != nil {
			o.BadReceipt = err.Error()
		}
		o.Receipt = r
	}
	return o, nil
}

// storePath ignores the path that readlink prints for a link that is missing.
func storePath(path string) string {
	if !strings.HasPrefix(path, "/nix/store/") {
		return ""
	}
	return path
}

// Health is what a server reports about itself.
type Health struct {
	// Ready reports whether its API is ready and it is a voting member of an etcd with a leader; Why
	// says what is missing.
	Ready bool
	Why   string
	// Version is the k3s that it runs, "v1.31.14+k3s1", also if it is not ready; "" if unknown.
	Version string
	// Members are the names of the servers that its etcd has as members, learners included, sorted; empty
	// if that is not known.
	Members []string
	// Learners are those of Members that do not vote yet.
	Learners []string
	// ID is its own in etcd, in hexadecimal digits, and Listed are all members as etcd lists them; empty if
	// unknown.
	ID     string
	Listed []Listed
	// Unnamed counts members that have been added to etcd and have not started yet, and UnnamedLearners
	// those of them that do not vote.
	Unnamed, UnnamedLearners int
}

// Listed is a line of "etcdctl member list".
type Listed struct {
	// ID is in hexadecimal digits. Name is that of the server, "" before its first start, and Peer is where
	// the others reach it, "https://10.0.100.13:2380".
	ID, Name, Peer string
}

// healthScript asks k3s in the container "$1". The API refuses anonymous questions, so kubectl asks with
// the credentials that are there. etcd's metrics are open, but only inside.
const healthScript = `
inside() { timeout 20 nixos-container run "$server" -- "$@"; }
server=$1
echo "readyz $(inside k3s kubectl get --raw=/readyz 2>&1 | tail -n 1)"
inside curl -fsS http://127.0.0.1:2381/metrics 2> /dev/null | grep -E '^etcd_server_(is_learner|has_leader) '
echo "version $(inside k3s --version 2> /dev/null | grep -o -m 1 'v[0-9][^ ]*')"
inside etcdctl member list 2> /dev/null | sed 's/^/member /'
inside etcdctl endpoint status 2> /dev/null | sed 's/^/status /'
true
`

// askServer asks the server container on a host.
func askServer(ctx context.Context, machine remote.Machine, container string) Health {
	out, err := machine.Script(ctx, healthScript, container)
	if err != nil {
		return Health{Why: reason(err)}
	}
	return parseHealth(out)
}

func parseHealth(out string) Health {
	said := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[key] = value
	}
	h := Health{Version: said["version"]}
	switch {
	case said["readyz"] != "ok":
		h.Why = "/readyz: " + cmp.Or(failedChecks(said["readyz"]), said["readyz"], "no answer")
	case said["etcd_server_has_leader"] == "":
		h.Why = "etcd does not answer"
	case said["etcd_server_has_leader"] != "1":
		h.Why = "etcd has no leader"
	case said["etcd_server_is_learner"] != "0":
		h.Why = "still a learner of etcd, not a voter"
	default:
		h.Ready = true
		h.addMembers(out)
		if status := strings.Split(said["status"], ", "); len(status) > 1 && isMemberID(status[1]) {
			h.ID = status[1]
		}
	}
	return h
}

var failedCheck = regexp.MustCompile(`\[-\]([^ ]+) failed`)

// failedChecks returns those of an API server's checks that failed, of some forty that it lists, or "".
func failedChecks(answer string) string {
	var names []string
	for _, match := range failedCheck.FindAllStringSubmatch(answer, -1) {
		names = append(names, match[1])
	}
	if len(names) == 0 {
		return ""
	}
	return "not ready: " + strings.Join(names, ", ")
}

// isMemberID reports whether a text is an ID of etcd: it goes into commands that are shown to the user.
func isMemberID(text string) bool {
	_, err := strconv.ParseUint(text, 16, 64)
	return err == nil
}

// addMembers reads the lines of "etcdctl member list".
func (h *Health) addMembers(out string) {
	for line := range strings.Lines(out) {
		text, isMember := strings.CutPrefix(strings.TrimSpace(line), "member ")
		m, ok := k3s.ParseMember(text)
		if isMember && ok && isMemberID(m.ID) {
			h.Listed = append(h.Listed, Listed{m.ID, m.Name, diag.Printable(m.Peers)})
		}
		switch {
		case !isMember || !ok:
		case m.Name != "":
			h.Members = append(h.Members, m.Name)
			if m.Learner {
				h.Learners = append(h.Learners, m.Name)
			}
		case m.Learner:
			h.UnnamedLearners++
			fallthrough
		default:
			h.Unnamed++
		}
	}
	slices.Sort(h.Members)
	slices.Sort(h.Learners)
}

// each calls ask for every name, at most limit at the same time, and returns the answers.
func each[T any](names []string, limit int, ask func(name string) T) map[string]T {
	answers := make(map[string]T, len(names))
	if limit <= 1 {
		for _, name := range names {
			answers[name] = ask(name)
		}
		return answers
	}
	var mutex sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, limit)
	for _, name := range names {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answer := ask(name)
			mutex.Lock()
			defer mutex.Unlock()
			answers[name] = answer
		})
	}
	group.Wait()
	return answers
}
