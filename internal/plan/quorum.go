package plan

// Quorum returns how many of a number of k3s servers etcd needs to work, and how many it can lose.
func Quorum(servers int) (needed, spare int) {
	if servers == 0 {
		return 0, 0
	}
	needed = servers/2 + 1
	return needed, servers - needed
}
