// Package rollout brings a plan to its hosts in a safe order: it finds out what every host needs,
// puts the hosts into waves that keep etcd's quorum, says what speaks against that, and goes on from
// wave to wave only while everything is well. Deciding (Decide, Judge, Waves) is pure; Driver does.
package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"k3splan/internal/fingerprint"
)

// ReceiptFile is where a host keeps its receipt, readable by root alone.
const ReceiptFile = "/var/lib/k3splan/receipt"

const receiptVersion = 2

// Receipt is written to a host last of all, after its gate has passed: whatever was interrupted or
// went wrong before leaves none, or an older one.
type Receipt struct {
	Version int `json:"version"`
	// Time is when the gate had passed, by the clock of the machine that deployed.
	Time time.Time `json:"time"`
	// System is the store path that ran then.
	System string `json:"system"`
	// Fingerprint is that of Inputs.
	Fingerprint string              `json:"fingerprint"`
	Inputs      fingerprint.Inputs  `json:"inputs"`
	Secrets     fingerprint.Secrets `json:"secrets"`
	// Plan is the whole plan of that deployment, also as others must know it when a host has left it.
	Plan KeptPlan `json:"plan"`
}

// serverName is that of the server that was deployed on the host, or "".
func (r *Receipt) serverName() string { return r.Inputs.Data["server.name"] }

// ofK3s tells that there is a receipt, and that the host had a server or agent.
func (r *Receipt) ofK3s() bool {
	return r != nil && (r.serverName() != "" || r.Inputs.Data["agent.name"] != "")
}

// hostName is the name by which the host was deployed that is called so now.
func (r *Receipt) hostName(now string) string { return cmp.Or(r.Inputs.Data["host.name"], now) }

func readReceipt(data []byte) (*Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("the receipt cannot be read: %w", err)
	}
	if r.Version != receiptVersion {
		return nil, fmt.Errorf("the receipt was written by another k3splan (form %d, this one knows %d)", r.Version, receiptVersion)
	}
	return &r, nil
}
