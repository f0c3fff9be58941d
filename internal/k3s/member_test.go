package k3s

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// As etcdctl 3.5 of a k3s cluster prints them, one of them added and not started yet.
const memberList = `1609b5a3a078c227, started, ulf-k3s-server-6c6d4a5e, https://10.0.100.13:2380, https://10.0.100.13:2379, false
cf1d15c5d194b5c9, unstarted, , https://10.0.100.14:2380, , true
`

func TestMembers(t *testing.T) {
	var calls []string
	server := Server{Container: "olaf-s", Run: func(_ context.Context, _ string, words ...string) (string, error) {
		calls = append(calls, strings.Join(words, " "))
		return "welcome\n" + memberList, nil
	}}
	members, err := server.Members(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Member{
		{"1609b5a3a078c227", "ulf-k3s-server", "https://10.0.100.13:2380", netip.MustParseAddr("10.0.100.13"), false},
		{"cf1d15c5d194b5c9", "", "https://10.0.100.14:2380", netip.MustParseAddr("10.0.100.14"), true},
	}, members)
	require.True(t, members[0].IsOf("ulf-k3s-server", netip.MustParseAddr("10.0.100.99")))
	require.False(t, members[0].IsOf("rolf-k3s-server", netip.MustParseAddr("10.0.100.13")), "a named member is known by its name")
	require.True(t, members[1].IsOf("rolf-k3s-server", netip.MustParseAddr("10.0.100.14")))
	require.NoError(t, server.RemoveMember(t.Context(), "cf1d15c5d194b5c9"))
	require.True(t, server.Reaches(t.Context(), netip.MustParseAddr("10.0.100.13")))
	require.Equal(t, []string{
		"nixos-container run olaf-s -- timeout 20 etcdctl member list",
		"nixos-container run olaf-s -- timeout 40 etcdctl member remove cf1d15c5d194b5c9",
		"nixos-container run olaf-s -- env ETCDCTL_ENDPOINTS=https://10.0.100.13:2379 timeout 20 etcdctl endpoint health",
	}, calls)
}

func TestDrain(t *testing.T) {
	fails := func(said string) Server {
		return Server{Container: "olaf-s", Run: func(_ context.Context, _ string, words ...string) (string, error) {
			require.Contains(t, strings.Join(words, " "), "timeout 75 k3s kubectl drain karl-a --ignore-daemonsets --timeout=60s")
			return "", &run.ExitError{Program: "ssh", Code: 1, Stderr: said}
		}}
	}
	// as kubectl 1.31 says it
	err := fails(`error when evicting pods/"db-0" -n "shop" (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.
error when evicting pods/"db-0" -n "shop" (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.
There are pending pods in node "karl-a" when an error occurred: error when evicting pods/"db-0" -n "shop": global timeout reached: 1m0s
`).Drain(t.Context(), "karl-a", time.Minute, false)
	require.ErrorContains(t, err, `drain the Node karl-a, on olaf-s, within 1m0s: pods/"db-0" -n "shop" (will retry after 5s): Cannot evict pod`)
	require.Contains(t, diag.HintOf(err), "poddisruptionbudgets")
	err = fails("error: unable to drain node \"karl-a\" due to error: cannot delete Pods that declare no controller (use --force to override): shop/debug, continuing command...\n").Drain(t.Context(), "karl-a", time.Minute, false)
	require.ErrorContains(t, err, "cannot delete Pods that declare no controller")
	err = fails("The connection to the server was refused\n").Drain(t.Context(), "karl-a", time.Minute, true)
	require.ErrorContains(t, err, "refused")
	require.Empty(t, diag.HintOf(err))
}

func TestNode(t *testing.T) {
	answer := ""
	var calls []string
	server := Server{Container: "olaf-s", Run: func(_ context.Context, _ string, words ...string) (string, error) {
		calls = append(calls, strings.Join(words[4:], " "))
		if answer == "fail" {
			return "", errors.New("no leader")
		}
		return answer, nil
	}}
	node, err := server.Node(t.Context(), "karl-a")
	require.NoError(t, err)
	require.Nil(t, node)
	answer = `{"metadata":{"name":"karl-a","labels":{"a":"b"},"annotations":{"c":"d"}},"spec":{"taints":[{"key":"k","value":"v","effect":"NoSchedule"}]},
"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"Unknown"}]}}`
	node, err = server.Node(t.Context(), "karl-a")
	require.NoError(t, err)
	require.Equal(t, &Node{Name: "karl-a", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Taints: []Taint{{"k", "v", "NoSchedule"}}}, node)
	answer = "<html>"
	_, err = server.Node(t.Context(), "karl-a")
	require.ErrorContains(t, err, "the answer is not a Node")
	answer = "secret/karl-a.node-password.k3s\n"
	remembers, err := server.Remembers(t.Context(), "karl-a")
	require.NoError(t, err)
	require.True(t, remembers)
	calls = nil
	require.NoError(t, server.DeleteNode(t.Context(), "karl-a"))
	require.Equal(t, []string{"timeout 60 k3s kubectl delete node karl-a --ignore-not-found",
		"timeout 60 k3s kubectl delete secret karl-a.node-password.k3s -n kube-system --ignore-not-found"}, calls)
	answer = "fail"
	require.ErrorContains(t, server.DeleteNode(t.Context(), "karl-a"), "no leader")
}
