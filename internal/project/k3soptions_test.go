package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

// optionProblems returns the problems of the two configuration files as `severity code file:line`, with
// what is expected in the hint.
func optionProblems(t *testing.T, files map[string]string) diag.Problems {
	t.Helper()
	_, problems, err := Load(folder(t, files))
	require.NoError(t, err)
	return slices.DeleteFunc(problems, func(p diag.Problem) bool { return p.Code == "k3s-ended" })
}

func TestOptionsOfK3s(t *testing.T) {
	for name, test := range map[string]struct {
		server, agent string
		minor         string
		severity      diag.Severity
		code          string
		hint          string
	}{
		"misspelt":                     {server: "kublet-arg: [a=b]", severity: diag.Error, code: "k3s-option-unknown", hint: `did you mean "kubelet-arg"?`},
		"another case":                 {server: "TLS-San: a.example", severity: diag.Error, code: "k3s-option-unknown", hint: `did you mean "tls-san"?`},
		"with underscores":             {agent: "kubelet_arg: [a=b]", severity: diag.Error, code: "k3s-option-unknown", hint: `did you mean "kubelet-arg"?`},
		"with hyphens":                 {server: "--kublet-arg: [a=b]", severity: diag.Error, code: "k3s-option-unknown", hint: `did you mean "kubelet-arg"?`},
		"of no release":                {server: "colour: blue", severity: diag.Warning, code: "k3s-option-unknown", hint: "k3s server --help"},
		"of old releases":              {server: "no-deploy: [traefik]", severity: diag.Error, code: "k3s-option-removed", hint: "now it is disable, with the same names"},
		"of old agents":                {agent: "no-flannel: true", severity: diag.Error, code: "k3s-option-removed", hint: "flannel-backend: none"},
		"of servers, at an agent":      {agent: "disable: [traefik]", severity: diag.Error, code: "k3s-option-unknown", hint: "k3s/server.yaml"},
		"of agents, at a server":       {server: "disable-apiserver-lb: true", severity: diag.Error, code: "k3s-option-unknown", hint: "k3s/agent.yaml"},
		"of the node, at a server":     {server: "kubelet-arg: [max-pods=50]", severity: diag.Warning, code: "k3s-option-ignored", hint: "k3s/agent.yaml"},
		"younger than the plan's k3s":  {server: "etcd-s3-retention: 3", minor: "1.31", severity: diag.Warning, code: "k3s-option-unknown", hint: "the plan has k3s 1.31"},
		"as old as the plan's k3s":     {server: "etcd-s3-retention: 3", minor: "1.34"},
		"of a k3s that is not known":   {server: "kublet-arg: [a=b]", minor: "1.99", severity: diag.Warning, code: "k3s-option-unknown", hint: `did you mean "kubelet-arg"?`},
		"hidden":                       {server: "disable-scheduler: true\nkube-controller-arg: [a=b]"},
		"pods' network":                {server: "cluster-cidr: 10.42.0.0/16,fd01::/48", severity: diag.Error, code: "key-reserved", hint: "take it out: it is pod_cidr in plans/network.yaml (IPv4 only)"},
		"services' network":            {server: "service-cidr: 10.43.0.0/16", severity: diag.Error, code: "key-reserved", hint: "service_cidr in plans/network.yaml"},
		"address":                      {agent: "node-ip: 10.0.100.99", severity: diag.Error, code: "key-reserved", hint: "the column ip of plans/k3s.csv"},
		"name":                         {agent: "node-name: x", severity: diag.Error, code: "key-reserved", hint: "the column name of plans/k3s.csv"},
		"token":                        {agent: "token: hunter2", severity: diag.Error, code: "key-reserved", hint: "secrets/init-token"},
		"keys of S3":                   {server: "etcd-s3-secret-key: hunter2", severity: diag.Error, code: "key-reserved", hint: "etcd-s3-config-secret"},
		"neither true nor false":       {server: "debug: maybe", severity: diag.Error, code: "value-invalid"},
		"not a number":                 {agent: "lb-server-port: many", severity: diag.Error, code: "value-invalid"},
		"two values for one":           {server: "debug: [true, false]", severity: diag.Error, code: "value-invalid"},
		"without a value":              {server: "disable:", severity: diag.Error, code: "value-invalid"},
		"disables a misspelt one":      {server: "disable: [treafik]", severity: diag.Warning, code: "k3s-option-ignored", hint: `did you mean "traefik"?`},
		"disables two in one text":     {server: "disable: traefik,servicelb"},
		"disables a manifest":          {server: "disable: [app]"},
		"a backend of old releases":    {server: "flannel-backend: wireguard", severity: diag.Error, code: "value-invalid", hint: `write "wireguard-native"`},
		"a misspelt backend":           {server: "flannel-backend: wiregard-native", severity: diag.Error, code: "value-invalid", hint: `did you mean "wireguard-native"?`},
		"a backend":                    {server: "flannel-backend: host-gw"},
		"a word of another option":     {server: "egress-selector-mode: no", severity: diag.Error, code: "value-invalid", hint: "one of: agent, cluster, pod, disabled"},
		"an unknown encryption":        {server: "secrets-encryption-provider: rot13", severity: diag.Error, code: "value-invalid", hint: "aescbc, secretbox"},
		"a schedule in words":          {server: "etcd-snapshot-schedule-cron: every day", severity: diag.Error, code: "value-invalid", hint: "five fields"},
		"a schedule":                   {server: "etcd-snapshot-schedule-cron: TZ=Europe/Berlin 0 */5 * * *"},
		"a schedule by its name":       {server: "etcd-snapshot-schedule-cron: '@every 6h'"},
		"DNS by IPv6":                  {server: "cluster-dns: 10.43.0.10,fd02::a", severity: diag.Error, code: "value-invalid", hint: "IPv4 only"},
		"DNS outside of the services":  {server: "cluster-dns: 10.44.0.10", severity: diag.Error, code: "value-invalid", hint: "service_cidr"},
		"DNS":                          {server: "cluster-dns: 10.43.0.53"},
		"masquerading of IPv6":         {server: "flannel-ipv6-masq: true", severity: diag.Warning, code: "k3s-option-ignored"},
		"external address by IPv6":     {agent: "node-external-ip: ['2001:db8::1']", severity: diag.Error, code: "value-invalid", hint: "IPv4 only"},
		"a blank is missing":           {server: "debug:true", severity: diag.Error, code: "yaml-syntax", hint: "write: debug: true"},
		"a blank is missing, below":    {server: "debug: true\nflannel-backend:none\ndisable: [traefik]", severity: diag.Error, code: "yaml-syntax", hint: "write: flannel-backend: none"},
		"a blank is missing in braces": {server: "{debug:true}", severity: diag.Error, code: "yaml-syntax", hint: "write: debug: true"},
		"a tab":                        {server: "disable:\n\t- traefik", severity: diag.Error, code: "yaml-syntax", hint: "indent it with blanks"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"manifests/app.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"}
			for file, text := range map[string]string{"k3s/server.yaml": test.server, "k3s/agent.yaml": test.agent} {
				if text != "" {
					files[file] = text + "\n"
				}
			}
			if test.minor != "" {
				files["plans/network.yaml"] = strings.NewReplacer("1.35", test.minor, "nixos-26.05", "<nixpkgs>").Replace(network)
			}
			problems := optionProblems(t, files)
			if test.code == "" {
				require.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1, "%v", problems)
			require.Equal(t, test.severity, problems[0].Severity, problems[0])
			require.Equal(t, test.code, problems[0].Code, problems[0])
			require.Contains(t, problems[0].Hint, test.hint)
			require.NotZero(t, problems[0].Line)
			require.NotContains(t, problems[0].String()+problems[0].Hint, "hunter2")
		})
	}
}

// A hint leads to the line of network.yaml that sets the option.
func TestAPlannedOptionNamesItsPlace(t *testing.T) {
	problems := optionProblems(t, map[string]string{
		"plans/network.yaml": network + "pod_cidr: 10.44.0.0/16\n", "k3s/server.yaml": "cluster-cidr: 10.44.0.0/16\n"})
	require.Len(t, problems, 1)
	require.Equal(t, "take it out: it is pod_cidr in plans/network.yaml:4 (IPv4 only)", problems[0].Hint)
}

// What YAML would turn into something else reaches k3s as it was written.
func TestValuesReachK3sAsText(t *testing.T) {
	p, problems, err := Load(folder(t, map[string]string{"k3s/server.yaml": `
write-kubeconfig-mode: 0644
etcd-snapshot-name: 2026-11-30
etcd-snapshot-dir: 1_000
etcd-s3-folder: 1:30
cluster-domain: 1.10
service-node-port-range: 0x10
helm-job-image: no
etcd-snapshot-retention: 7
kube-apiserver-arg: [audit-log-maxage=010, 1.0, yes]
etcd-s3: on
`}))
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, K3sConfig{
		"write-kubeconfig-mode": "0644", "etcd-snapshot-name": "2026-11-30", "etcd-snapshot-dir": "1_000", "etcd-s3-folder": "1:30",
		"cluster-domain": "1.10", "service-node-port-range": "0x10", "helm-job-image": "no", "etcd-snapshot-retention": 7,
		"kube-apiserver-arg": []string{"audit-log-maxage=010", "1.0", "yes"}, "etcd-s3": true,
	}, p.ServerConfig)
}
