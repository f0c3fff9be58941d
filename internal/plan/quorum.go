package plan

// Quorum tells how many of a number of k3s servers etcd needs to go on, and how many it can lose.
func Quorum(servers int) (needed, spare int) {
	if servers == 0 {
		return 0, 0
	}
	needed = servers/2 + 1
	return needed, servers - needed
}
