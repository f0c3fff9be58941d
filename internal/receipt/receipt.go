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
	"path"
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

// Files are all that a host remembers of its deployments, as words of a shell.
const Files = File + " " + attemptFile

// Version is the form of the receipts that this k3splan writes, and the only one that it reads.
const Version = 2

// Receipt is written after all other steps of a deployment, when the gate has passed. Whatever was
// interrupted or failed before leaves none, or an older one.
type Receipt struct {
	Version int `json:"version"`
	// Time is when the gate passed, by the clock of the machine that deployed.
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

// WriteScript returns a POSIX shell script that replaces the receipt of a host in one step. The receipt
// is part of the script, not of its arguments.
func (r *Receipt) WriteScript() (string, error) {
	content, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	return writeScript(content) + "rm -f " + attemptFile + "\n", nil
}

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
