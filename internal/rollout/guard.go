package rollout

// othersScript asks etcd in the container "$1" whether all members are healthy, right before that one is
// stopped, on the machine itself. It fails only if a member is down: that everything can be asked was seen
// a moment before, by Check.
const othersScript = `
down=$(PATH=/run/current-system/sw/bin:$PATH timeout 20 nixos-container run "$1" -- etcdctl endpoint health --cluster 2>&1 | grep "is unhealthy" | cut -d " " -f 1)
if [ -n "$down" ]; then
  echo "k3splan: $1 was not stopped, as another member of etcd went down:" $down >&2
  exit 1
fi
`

// guardFile is asked by NixOS right before a new system is switched to (templates/modules/server.nix), after
// Colmena has evaluated, built and copied it, which can take minutes.
const guardFile = "/run/k3splan/guard"

// askGuard asks the question that is left on a machine, if one is.
const askGuard = "[ ! -e " + guardFile + " ] || sh " + guardFile + " || exit 1\n"

// guardRefused is what NixOS says of a question that refuses the switch.
const guardRefused = "Pre-switch check 'k3splan' failed"

// guardScript leaves othersScript on a host, for the next activation alone.
func guardScript(server string) string {
	return "mkdir -p /run/k3splan\ncat > " + guardFile + " << 'k3splan-end-of-guard'\n" +
		"rm -f " + guardFile + "\nset -- '" + server + "'\n" + othersScript + "k3splan-end-of-guard\n"
}

// guardFor returns a script that leaves the last question on a host, or "": if the work stops a healthy member of
// etcd there, and the user has not agreed to that with others down.
func (d *Driver) guardFor(host string, work Work) string {
	if !work.Restarts() || !d.Before.Health[host].Ready || d.mayLoseQuorum() {
		return ""
	}
	return guardScript(d.Before.runs(host))
}

// mayLoseQuorum reports whether the user has forced that a member is stopped while another one is down.
func (d *Driver) mayLoseQuorum() bool {
	for _, o := range d.Agreed {
		if o.Code == "quorum-lost" {
			return true
		}
	}
	return false
}
