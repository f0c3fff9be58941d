package plan

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

func rackOfTags(t *testing.T) *Plan {
	t.Helper()
	p, problems := Load(project(map[string]string{
		HostsFile: "name,interface,ip,admin,tags\n" +
			"olaf,eno1,10.0.100.2,olaf,rack1 fast\nulf,eno1,10.0.100.3,olaf,rack1\nrolf,eno1,10.0.100.4,olaf,rack2\n" +
			"karl,eno1,10.0.100.5,olaf,rack2\nulrich,eno1,10.0.100.6,olaf,\n",
		K3sFile: "host,name,type,ip\nolaf,olaf-server,init,10.0.100.12\nulf,ulf-server,server,10.0.100.13\n" +
			"rolf,rolf-server,server,10.0.100.14\nkarl,karl-agent,agent,10.0.100.25\n",
		NetworkFile: "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: 1.35}\n",
	}))
	require.Empty(t, problems)
	return p
}

func TestSelect(t *testing.T) {
	p := rackOfTags(t)
	for selector, want := range map[string]string{
		"":                          "karl olaf rolf ulf ulrich",
		"olaf":                      "olaf",
		"ulf|OLAF":                  "olaf ulf",
		"olaf,ulf":                  "olaf ulf",
		"olaf ulf\tkarl":            "karl olaf ulf",
		"olaf,,ulf, ":               "olaf ulf",
		"ul*":                       "ulf ulrich",
		"[kr]*":                     "karl rolf",
		"@rack1":                    "olaf ulf",
		"@rack?":                    "karl olaf rolf ulf",
		"@k3s-server":               "olaf rolf ulf",
		"@k3s-init":                 "olaf",
		"@k3s-agent":                "karl",
		"@rack1 @rack2 !@k3s-init":  "karl rolf ulf",
		"!@k3s-init":                "karl rolf ulf ulrich",
		"!ulf !olaf":                "karl rolf ulrich",
		"!ulf|@rack1":               "olaf",
		"* !ul*":                    "karl olaf rolf",
		"@k3s-server|!@RACK2,!olaf": "ulf",
	} {
		t.Run(selector, func(t *testing.T) {
			var patterns []string
			if selector != "" {
				patterns = strings.Split(selector, "|")
			}
			hosts, err := p.Select(patterns...)
			require.NoError(t, err)
			var names []string
			for _, host := range hosts {
				names = append(names, host.Name)
			}
			require.Equal(t, want, strings.Join(names, " "))
		})
	}
}

// A term that selects nothing is a slip of the pen; one that takes nothing away would let a host be
// deployed that was meant to be left out.
func TestSelectNothing(t *testing.T) {
	p := rackOfTags(t)
	for selector, want := range map[string][2]string{
		"olav":           {`there is no host "olav" in the plan`, `did you mean "olaf"?`},
		"olaf !olav":     {`there is no host "olav" in the plan`, `did you mean "olaf"?`},
		"!@rack3":        {`there is no tag "rack3" in the plan`, `did you mean "@rack1"?`},
		"@nowhere":       {`there is no tag "nowhere" in the plan`, "the tags are: fast rack1 rack2 k3s-server k3s-agent k3s-init"},
		"x*":             {`there is no host "x*" in the plan`, "the hosts are: karl olaf rolf ulf ulrich"},
		"olaf-server":    {`"olaf-server" is not a host but the init server of one`, `did you mean its host, "olaf"?`},
		"olaf|":          {`"" selects no host: write a name, @TAG or pattern`, ""},
		"olaf| ,":        {`" ," selects no host: write a name, @TAG or pattern`, ""},
		"@":              {`"@" selects no host: write a name, @TAG or pattern`, ""},
		"!":              {`"!" selects no host: write a name, @TAG or pattern`, ""},
		"!!olaf":         {`there is no host "!olaf" in the plan`, ""},
		"[":              {`"[" selects no host: write a name, @TAG or pattern`, ""},
		"olaf !olaf":     {`"olaf !olaf" selects no host: all of them are taken away again`, "name a host that no term with ! takes away"},
		"@rack1|!@rack*": {`"@rack1 !@rack*" selects no host: all of them are taken away again`, "name a host that no term with ! takes away"},
		"!*":             {`"!*" selects no host: all of them are taken away again`, "name a host that no term with ! takes away"},
	} {
		t.Run(selector, func(t *testing.T) {
			hosts, err := p.Select(strings.Split(selector, "|")...)
			require.EqualError(t, err, want[0])
			require.Empty(t, hosts)
			if want[1] != "" {
				require.Equal(t, want[1], diag.HintOf(err))
			}
		})
	}
}
