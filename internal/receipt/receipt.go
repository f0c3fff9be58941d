// Package receipt holds what a host remembers of its last successful deployment. The host keeps it in
// [File], readable by root alone; deploy and status compare it with the plan, and token rotation takes
// the server token's seal out of it.
package receipt

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"strings"
	"time"

	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
)

// File is the receipt's path on a host.
const File = "/var/lib/k3splan/receipt"

// attemptFile holds the seals of the secrets that a deployment was about to bring, until its receipt is
// written: if it is interrupted and the secrets are changed back, the receipt alone would not show that
// the host has others.
const attemptFile = "/var/lib/k3splan/attempt"

// archive has a receipt for each system that was deployed and that the host still has, by the base name of
// its store path.
const archive = "/var/lib/k3splan/receipts"

// rollbackFile has the number of the generation that the host was about to be rolled back to, until its
// receipt is written: whoever continues must not take that generation for the one before.
const rollbackFile = "/var/lib/k3splan/rollback"

// Files are all that a host remembers of its deployments, as words of a shell.
const Files = File + " " + attemptFile + " " + rollbackFile

// Version is the form of the receipts that this k3splan writes, and the only one that it reads.
const Version = 2

// Receipt is written after all other steps of a deployment, when the gate has passed. Whatever was
// interrupted or failed before leaves none, or an older one.
type Receipt struct {
	Version int `json:"version"`
	// Time is when the gate of the deployment passed, by the clock of the machine that deployed.
	Time time.Time `json:"time"`
	// System is the store path that ran then.
	System string `json:"system"`
	// Fingerprint is that of Inputs.
	Fingerprint string              `json:"fingerprint"`
	Inputs      fingerprint.Inputs  `json:"inputs"`
	Secrets     fingerprint.Secrets `json:"secrets"`
	// Plan is the whole plan of that deployment: after a host has left the plan, the receipts of the
	// others still know it.
	Plan KeptPlan `json:"plan"`
	// RolledBack is not nil if the host was brought back to System, an older one, and not deployed since.
	RolledBack *Rollback `json:"rolled_back,omitempty"`
}

// Rollback is how a host came to run an older system.
type Rollback struct {
	// Time is when the gate passed, by the clock of the machine that asked for it.
	Time time.Time `json:"time"`
	// From is the store path that was deployed before.
	From string `json:"from"`
	// Generation is the number of what runs since.
	Generation int `json:"generation"`
}

// New returns the receipt of a host that has just been deployed.
func New(p *plan.Plan, system string, in fingerprint.Inputs, secrets fingerprint.Contents) (*Receipt, error) {
	kept, err := Keep(p)
	if err != nil {
		return nil, err
	}
	return &Receipt{
		Version: Version, Time: time.Now().UTC().Truncate(time.Second), System: system,
		Fingerprint: in.Fingerprint(), Inputs: in, Secrets: secrets.Seal(), Plan: kept,
	}, nil
}

// Parse reads the content of [File].
func Parse(content []byte) (*Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(content, &r); err != nil {
		return nil, fmt.Errorf("the receipt cannot be read: %w", err)
	}
	if r.Version != Version {
		return nil, fmt.Errorf("the receipt was written by another version of k3splan (form %d, this one reads %d)", r.Version, Version)
	}
	return &r, nil
}

// Same reports whether two receipts were written at the same time; both may be nil.
func (r *Receipt) Same(other *Receipt) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.Time.Equal(other.Time) && r.rolledBackAt().Equal(other.rolledBackAt())
}

func (r *Receipt) rolledBackAt() time.Time {
	if r.RolledBack == nil {
		return time.Time{}
	}
	return r.RolledBack.Time
}

// ServerName returns the name of the server that was deployed on the host, or "".
func (r *Receipt) ServerName() string {
	if r == nil {
		return ""
	}
	return r.Inputs.Data["server.name"]
}

// AgentName returns the name of the agent that was deployed on the host, or "".
func (r *Receipt) AgentName() string {
	if r == nil {
		return ""
	}
	return r.Inputs.Data["agent.name"]
}

// HasK3s reports whether a server or agent was deployed on the host.
func (r *Receipt) HasK3s() bool { return r.ServerName() != "" || r.AgentName() != "" }

// HostName returns the name by which the host was deployed that is called now.
func (r *Receipt) HostName(now string) string { return cmp.Or(r.Inputs.Data["host.name"], now) }

// BackTo returns the receipt of a host that has been brought back from what r says to another generation. was
// is the receipt of that one's deployment; without it (nil) nothing is known of what it was made from, except
// for the names of its server and agent. The secrets are those of r: they did not go back.
func (r *Receipt) BackTo(was *Receipt, system string, generation int, server, agent string) *Receipt {
	after := *r
	if was != nil {
		after = *was
	} else {
		after.Fingerprint, after.Inputs.Data = "", maps.Clone(r.Inputs.Data)
		if after.Inputs.Data == nil {
			after.Inputs.Data = map[string]string{}
		}
		after.Inputs.Data["server.name"], after.Inputs.Data["agent.name"] = server, agent
	}
	after.System, after.Secrets = system, r.Secrets
	after.RolledBack = &Rollback{Time: time.Now().UTC().Truncate(time.Second), From: r.System, Generation: generation}
	return &after
}

// WriteScript returns a POSIX shell script that replaces the receipt of a host in one step. The receipt
// is part of the script, not of its arguments. That of a deployment is kept for as long as its system is one
// of the host's generations.
func (r *Receipt) WriteScript() (string, error) {
	content, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	script := writeScript(content)
	if r.RolledBack == nil && archivable.MatchString(r.System) {
		script += strings.ReplaceAll(keepScript, "$system", path.Base(r.System))
	}
	return script + "rm -f " + attemptFile + " " + rollbackFile + "\n", nil
}

// archivable is a store path that needs no quotes in a shell.
var archivable = regexp.MustCompile(`^/nix/store/[0-9A-Za-z][0-9A-Za-z.+_=-]*$`)

// keepScript copies the receipt to the archive, and removes those of systems that the host does not have any more.
const keepScript = "mkdir -p " + archive + "\n" +
	"cp " + File + " " + archive + "/$system.new\nmv " + archive + "/$system.new " + archive + "/$system\n" +
	"here=$(for link in /nix/var/nix/profiles/system-*-link; do readlink \"$link\" || true; done)\n" +
	"for kept in " + archive + "/*; do\n" +
	"  case \"/$here\" in *\"/${kept##*/}\"*) ;; *) [ \"${kept##*/}\" = $system ] || rm -f \"$kept\" ;; esac\ndone\n"

// ReadKeptScript is a POSIX shell script that prints the receipt of the deployment of the system "$1", or
// nothing if none is kept.
const ReadKeptScript = "if [ -e \"" + archive + "/${1##*/}\" ]; then cat \"" + archive + "/${1##*/}\"; fi\n"

// RollbackScript is a POSIX shell script that remembers on a host that it is about to be brought back to
// generation "$1".
const RollbackScript = "set -e\numask 077\nmkdir -p /var/lib/k3splan\n" +
	"echo \"$1\" > " + rollbackFile + ".new\nmv " + rollbackFile + ".new " + rollbackFile + "\n"

// ReadRollbackScript is a POSIX shell script that prints the line "rollback NUMBER" if the host was about to be
// brought back to a generation, and that did not end.
const ReadRollbackScript = "if [ -e " + rollbackFile + " ]; then echo \"rollback $(cat " + rollbackFile + ")\"; fi\n"

// writeScript writes JSON of a single line, which cannot end the here-document early.
func writeScript(content []byte) string {
	return "set -e\numask 077\nmkdir -p " + path.Dir(File) + "\n" +
		"cat > " + File + ".new << 'k3splan-end-of-receipt'\n" + string(content) + "\nk3splan-end-of-receipt\n" +
		"mv " + File + ".new " + File + "\n"
}

// AttemptScript returns a POSIX shell script that remembers on a host which secrets are about to come.
func AttemptScript(secrets fingerprint.Contents) (string, error) {
	content, err := json.Marshal(secrets.Seal())
	if err != nil {
		return "", err
	}
	return "set -e\numask 077\nmkdir -p " + path.Dir(attemptFile) + "\n" +
		"cat > " + attemptFile + ".new << 'k3splan-end-of-attempt'\n" + string(content) + "\nk3splan-end-of-attempt\n" +
		"mv " + attemptFile + ".new " + attemptFile + "\n", nil
}

// ReadAttemptScript is a POSIX shell script that prints the line "attempt JSON" if a deployment was about
// to bring secrets and did not end.
const ReadAttemptScript = "if [ -e " + attemptFile + " ]; then echo \"attempt $(cat " + attemptFile + ")\"; fi\n"

// ParseAttempt reads what ReadAttemptScript prints behind its first word. What cannot be read is an
// attempt with unknown secrets.
func ParseAttempt(text string) *fingerprint.Secrets {
	var sealed fingerprint.Secrets
	_ = json.Unmarshal([]byte(text), &sealed)
	return &sealed
}

// ReadScript is a POSIX shell script that prints the receipt of a host, or nothing if it has none.
const ReadScript = "if [ -e " + File + " ]; then cat " + File + "; fi\n"

// ForgetScript returns a POSIX shell script that takes the seal of one kind of secret out of a receipt,
// given as ReadScript prints it. The next deployment then takes the secret for one that the host has
// never had. Everything else stays as it is, fields of other versions included. The script is empty if
// there is nothing to forget.
func ForgetScript(content []byte, kind string) (string, error) {
	var receipt, sealed, kinds map[string]json.RawMessage
	if json.Unmarshal(content, &receipt) != nil || json.Unmarshal(receipt["secrets"], &sealed) != nil || json.Unmarshal(sealed["kinds"], &kinds) != nil {
		return "", nil // no receipt, or one that a deployment does not trust either
	}
	if _, found := kinds[kind]; !found {
		return "", nil
	}
	delete(kinds, kind)
	var err error
	if sealed["kinds"], err = json.Marshal(kinds); err != nil {
		return "", err
	}
	if receipt["secrets"], err = json.Marshal(sealed); err != nil {
		return "", err
	}
	if content, err = json.Marshal(receipt); err != nil {
		return "", err
	}
	return writeScript(content), nil
}

// KeptPlan is the compressed JSON of a plan's Model: about ten kilobytes for 1,000 hosts.
type KeptPlan []byte

// Keep compresses a plan. The same plan gives the same bytes.
func Keep(p *plan.Plan) (KeptPlan, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(p.Model()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxPlan limits what a KeptPlan may unfold to, in bytes: the plan of 100,000 hosts is smaller.
const maxPlan = 64 << 20

// Plan returns the plan that was kept.
func (k KeptPlan) Plan() (*plan.Plan, error) {
	r, err := gzip.NewReader(bytes.NewReader(k))
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(r, maxPlan))
	if err != nil {
		return nil, err
	}
	return plan.FromModel(content)
}
