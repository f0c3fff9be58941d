// Package rollout brings a plan to its hosts in a safe order. It asks the hosts what they run and finds
// out what each of them needs ([Decide]), puts the hosts into waves that keep etcd's quorum ([Waves]),
// judges whether that could do harm ([Judge]), and carries it out wave by wave for as long as everything
// is healthy ([Run]).
//
// Decide, Waves and Judge are pure functions of what is known. [Deploy] is the whole command.
package rollout
