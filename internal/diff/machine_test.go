package diff

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMachine(t *testing.T) {
	const columns = "name,interface,ip,admin,serial,role,groups,reboot_order,depends_on,strategy,reboot_delay,criticality\n"
	network := "{netmask: 24, gateway: 10.0.0.1, versions: {nixos: nixos-26.05}}"
	older := tables{"network": network, "k3s": "host,name,type,ip\n",
		"hosts":  columns + "a,eno1,10.0.0.2,x,s1,,web,,,,,\nb,eno1,10.0.0.3,x,s2,,,,a,,,\nc,eno1,10.0.0.4,x,s3,,,,a b,,,\n",
		"checks": "host,name,type,target,timeout,from\n*,ssh,tcp,22,,\na,web,http,http://a/,,\n"}
	newer := tables{"network": network, "k3s": "host,name,type,ip\n",
		"hosts":  columns + "anna,eno1,10.0.0.2,x,s1,,,5,,,,critical\nb,eno1,10.0.0.3,x,s2,Big store,\"edge, web\",,anna,blue-green,30,\nc,eno1,10.0.0.4,x,s3,,,,b,,,\n",
		"checks": "host,name,type,target,timeout,from\n* !c,ssh,tcp,2222,5,\nb,disk,command,test -e /srv,,\n"}
	var sentences []string
	for _, c := range Compare(older.plan(t), newer.plan(t)) {
		sentences = append(sentences, string(c.Risk)+" "+c.Sentence+" "+c.Where)
		require.Empty(t, c.Restarts)
		require.Equal(t, []string{c.Name}, c.Hosts)
	}
	require.ElementsMatch(t, []string{
		"none host a renamed to anna plans/hosts.csv:2",
		"none host anna: reboot_order 100 → 5 plans/hosts.csv:2",
		"none host anna: criticality medium → critical plans/hosts.csv:2",
		"none host anna: group web removed ",
		"none host anna: check ssh tcp 22 from the operator within 10 s → tcp 2222 from the operator within 5 s plans/checks.csv:2",
		"none host anna: check web removed: http http://a/ from the operator within 10 s ",
		"none host b: role set to Big store plans/hosts.csv:3",
		"none host b: reboot_delay 600 s → 30 s plans/hosts.csv:3",
		"none host b: strategy rolling → blue-green plans/hosts.csv:3",
		"none host b: group edge added plans/hosts.csv:3",
		"none host b: group web added plans/hosts.csv:3",
		"none host b: check disk added: command test -e /srv from the host within 10 s plans/checks.csv:3",
		"none host b: check ssh tcp 22 from the operator within 10 s → tcp 2222 from the operator within 5 s plans/checks.csv:2",
		"none host c: dependency on anna removed plans/hosts.csv:4",
		"none host c: check ssh removed: tcp 22 from the operator within 10 s ",
	}, sentences)
}
