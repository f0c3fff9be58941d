package plan

import (
	"fmt"
	"net/netip"
	"regexp"

	"k3splan/internal/diag"
)

// Network is what all hosts share: network.yaml.
type Network struct {
	// Subnet is the LAN of the hosts and containers; it contains Gateway.
	Subnet  netip.Prefix
	Gateway netip.Addr
	// Nameservers are never empty.
	Nameservers []netip.Addr
	// Domain and Timezone (an IANA name) are "" if the plan has none.
	Domain, Timezone string
	// PodCIDR and ServiceCIDR are k3s's own networks.
	PodCIDR, ServiceCIDR netip.Prefix
	// TLSSAN are further names and addresses of the Kubernetes API, sorted.
	TLSSAN   []string
	Versions Versions
	// AddressRange are the addresses that k3splan may give to what is added; by default all of the
	// subnet.
	AddressRange AddressRange
	// Secrets is where the secrets are kept. It is not part of the Model: no machine needs it.
	Secrets SecretStore

	// places are the places of the keys (see Where)
	places map[string]diag.Problem
}

// Versions are the releases that a plan asks for.
type Versions struct {
	NixOS, Disko Source
	// K3s is the zero K3sVersion if the plan has no k3s.
	K3s K3sVersion
	// PermitEnded is the minor version of k3s that may run although nixpkgs marks it as insecure, or "". It is
	// a step of an upgrade.
	PermitEnded string
	// State is the release ("24.11") whose data formats machines use that have no other state_version.
	State string
}

// K3sVersion is a release of k3s, or a minor version whose patch release nixpkgs chooses.
type K3sVersion struct {
	// Minor is "1.31".
	Minor string
	// Patch is "1.31.14+k3s1", or "".
	Patch string
}

func (v K3sVersion) String() string {
	if v.Patch != "" {
		return v.Patch
	}
	return v.Minor
}

// Defaults of network.yaml. Those of the pod and service networks are k3s's own.
var (
	defaultNameservers = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8})}
	defaultPodCIDR     = netip.MustParsePrefix("10.42.0.0/16")
	defaultServiceCIDR = netip.MustParsePrefix("10.43.0.0/16")
)

const defaultDisko = "latest"

var (
	k3sVersionForm = regexp.MustCompile(`^v?([1-9][0-9]*\.(?:0|[1-9][0-9]*))(?:(\.[0-9]+)[+-](k3s[0-9]+))?$`)
	patchForm      = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+$`)
)

func parseK3sVersion(text string) (K3sVersion, *finding) {
	m := k3sVersionForm.FindStringSubmatch(text)
	if m == nil {
		hint := exampleK3s()
		if patchForm.MatchString(text) {
			hint = fmt.Sprintf("with k3s's own number: %s+k3s1; or %s for the patch release that nixpkgs has", text, newK3s())
		}
		return K3sVersion{}, &finding{"version-invalid", "not a version of k3s", hint}
	}
	version := K3sVersion{Minor: m[1]}
	if m[2] != "" {
		version.Patch = m[1] + m[2] + "+" + m[3]
	}
	return version, nil
}
