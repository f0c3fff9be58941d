package plan

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// What is read back from the model has the same model.
func TestFromModel(t *testing.T) {
	for name, project := range map[string]fstest.MapFS{
		"all": project(nil),
		"hosts of every kind": {
			HostsFile: {Data: []byte("name,interface,ip,admin,boot,system,mac,serial,tags,MAC address,name of owner\n" +
				"olaf,eno1,10.0.0.2@olaf.example.org:2222,olaf,legacy,aarch64-linux,52:54:00:12:34:56,S3R,b a,x,\"null, or\"\n" +
				"ulf,eno1,dhcp@10.9.9.9,ulf,,,,,,,\n" + "no,eno1,10.0.0.4,y,,,,,,,\"two\n\n lines\"\n" + "here,eno1,10.0.0.3@local,me,,,,,,,\n")},
			K3sFile: {Data: []byte("host,name,type,ip,mac,labels,taints,type of box\n" +
				"olaf,olaf-s,init,10.0.0.12,52:54:00:12:34:57,,,\n" + "here,here-a,agent,10.0.0.13,,a=b c=,k=v:NoSchedule d:NoExecute,large\n")},
			NetworkFile: {Data: []byte("gateway: 10.0.0.1\nnetmask: 24\ntls_san: [b.example.org, a.example.org]\ndomain: example.org\n" +
				"timezone: Europe/Oslo\nversions: {nixos: ../nixpkgs, k3s: v1.35.1+k3s1, disko: https://example.org/disko.git#v1}\n")},
		},
		"no k3s": {
			HostsFile:   {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.0.2,olaf\n")},
			K3sFile:     {Data: []byte("host,name,type,ip\n")},
			NetworkFile: {Data: []byte("gateway: 10.0.0.1\nnetmask: 24\nversions: {nixos: <nixpkgs>}\n")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, problems := Load(project)
			require.Zero(t, problems.Errors(), "%v", problems)
			data, err := json.Marshal(p.Model())
			require.NoError(t, err)
			back, err := FromModel(data)
			require.NoError(t, err)
			again, err := json.Marshal(back.Model())
			require.NoError(t, err)
			require.Equal(t, string(data), string(again))
			require.Equal(t, p.Network.Versions, back.Network.Versions)
			require.Equal(t, p.HasK3s(), back.HasK3s())
			for _, host := range p.Hosts {
				require.Equal(t, host.DHCP(), back.Host(host.Name).DHCP())
				require.Empty(t, back.Host(host.Name).Where("name"))
			}
			// host by host, YAML is what it would be as a whole
			var whole, written bytes.Buffer
			encoder := yaml.NewEncoder(&whole)
			encoder.SetIndent(2)
			require.NoError(t, encoder.Encode(p.Model()))
			require.NoError(t, encoder.Close())
			require.NoError(t, p.Model().WriteYAML(&written))
			require.Equal(t, whole.String(), written.String())
		})
	}
}

func TestFromModelThatIsNone(t *testing.T) {
	for _, text := range []string{"", "[]", "{}", `{"hosts": {"olaf": {"ip": 7}}}`, `{"hosts": {"olaf": {"k3s": {"agent": {"ip": "x"}}}}}`, `{"hosts": {"olaf": {"rack": 1}}}`} {
		_, err := FromModel([]byte(text))
		require.Error(t, err, text)
	}
}
