package secrets

import (
	"path"
	"time"
)

// SetAside moves a secret that nothing needs any more to the retired ones, in one step, and returns its name
// there.
func (v *Vault) SetAside(name string, now time.Time) (kept string, err error) {
	kept = retiredName(name, now)
	return kept, v.Rename(name, kept)
}

// retiredName is the name of a secret among the retired ones.
func retiredName(name string, now time.Time) string {
	return path.Join(Retired, path.Base(name)+"-"+now.UTC().Format("20060102T150405.000Z"))
}

// OfHost returns the names of the secrets that are named after a host: its own password and its ssh key.
func (v *Vault) OfHost(host string, hosts []string) (names []string, err error) {
	all, err := v.List()
	if err != nil {
		return nil, err
	}
	owners := NewOwners(hosts)
	for _, name := range all {
		if owners.Host(name) == host {
			names = append(names, name)
		}
	}
	return names, nil
}
