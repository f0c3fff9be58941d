package plan

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a receipt contains, there is a plan or an error. A plan can be kept and read again.
func FuzzFromModel(f *testing.F) {
	p, problems := Load(project(nil))
	require.Zero(f, problems.Errors())
	data, err := json.Marshal(p.Model())
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"hosts":{"a":{"name":"a","ip":null,"Name":"x","IP":"y","ſerial":"z","k3s":{"server":{"name":"s","IP":"x"},"agent":null}}},
		"network":{"gateway":"10.0.0.1","netmask":24,"pod_cidr":"10.42.0.0/16","service_cidr":"10.43.0.0/16","versions":{"nixos":"nixos-24.11","disko":"latest","k3s":"1.31"}}}`))
	f.Add([]byte(`{"hosts":{"a":null,"b":{"k3s":null,"tags":null,"target":{"port":-1}}},"network":{"netmask":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := FromModel(data)
		if err != nil {
			return
		}
		first, err := json.Marshal(p.Model())
		require.NoError(t, err)
		again, err := FromModel(first)
		require.NoError(t, err)
		second, err := json.Marshal(again.Model())
		require.NoError(t, err)
		require.Equal(t, string(first), string(second))
		for _, host := range p.Hosts {
			require.Same(t, host, p.Host(host.Name))
		}
	})
}
