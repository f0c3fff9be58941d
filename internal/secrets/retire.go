package secrets

import (
	"path"
	"time"
)

// Retired is the folder of the secrets that were replaced and that somebody may still need.
const Retired = "retired"

// Retire keeps a copy of a secret before it is replaced or removed, and gives the name of the copy.
// Snapshots of a cluster need the token that was good when they were taken.
func (v *Vault) Retire(name string, now time.Time) (kept string, err error) {
	content, err := v.Read(name)
	if err != nil {
		return "", err
	}
	kept = path.Join(Retired, path.Base(name)+"-"+now.UTC().Format("20060102T150405.000Z"))
	return kept, v.Create(kept, content)
}
