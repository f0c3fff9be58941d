package plan

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const machineHosts = "name,interface,ip,admin,tags,role,groups,reboot_order,depends_on,strategy,reboot_delay,criticality\n"

// row returns the rows of hosts a, b and c with more cells each, from the tags on.
func machineRows(cells ...string) string {
	text := machineHosts
	for i, more := range cells {
		text += fmt.Sprintf("%c,eno1,10.0.100.%d,admin,%s\n", 'a'+i, i+2, more)
	}
	return text
}

func TestMachineColumns(t *testing.T) {
	p, problems := Load(project(map[string]string{
		HostsFile:  machineRows(`x,Web Server,"edge, web edge",-5,"B c",Blue_Green,0,CRITICAL`, `x,,,,,,,`, `,,,,,recreate,,low`),
		K3sFile:    "host,name,type,ip\n",
		ChecksFile: "# ours\nhost,name,type,target,timeout,from\n@x !b,Web,HTTP,http://10.0.100.2:8080/Health?A=b,3,host\n*,ssh,tcp,22,,\na,db,tcp,Db.example:5432,,\nb,disk,command,\"test -d /srv, && echo \"\"x\"\"\",60,operator\nb,cron,unit,cron,,\n",
	}))
	require.Zero(t, problems.Errors())
	require.Len(t, problems, 2)
	for i, want := range []string{"blue-green", "recreate"} {
		require.Equal(t, "strategy-ignored", problems[i].Code)
		require.Equal(t, want, problems[i].Value)
		require.Contains(t, problems[i].Message, "does not act on strategies yet")
	}
	ssh := HealthCheck{Name: "ssh", Type: CheckTCP, Port: 22, Timeout: 10, From: FromOperator}
	require.Equal(t, Machine{
		Role: "Web Server", Groups: []string{"edge", "web"}, RebootOrder: -5, Dependencies: []string{"b", "c"},
		HealthChecks: []HealthCheck{
			{Name: "Web", Type: CheckHTTP, URL: "http://10.0.100.2:8080/Health?A=b", Timeout: 3, From: FromHost},
			{Name: "db", Type: CheckTCP, Host: "Db.example", Port: 5432, Timeout: 10, From: FromOperator}, ssh,
		},
		Orchestration: Orchestration{Strategy: BlueGreen, RebootDelay: 0, Criticality: Critical},
	}, p.Host("a").Machine)
	require.Equal(t, []HealthCheck{
		{Name: "cron", Type: CheckUnit, Unit: "cron.service", Timeout: 10, From: FromHost},
		{Name: "disk", Type: CheckCommand, Command: `test -d /srv, && echo "x"`, Timeout: 60, From: FromOperator}, ssh,
	}, p.Host("b").Machine.HealthChecks)
	require.Equal(t, "plans/checks.csv:6", p.Host("b").WhereCheck("disk"))
	require.Equal(t, Orchestration{Strategy: Recreate, RebootDelay: 600, Criticality: Low}, p.Host("c").Machine.Orchestration)
	require.Equal(t, 100, p.Host("c").Machine.RebootOrder)

	// what Nix gets, and a receipt has, is the same
	data, err := json.Marshal(p.Model())
	require.NoError(t, err)
	back, err := FromModel(data)
	require.NoError(t, err)
	for _, host := range p.Hosts {
		require.Equal(t, host.Machine, back.Host(host.Name).Machine)
	}
}

// Models of the past have none of it, or columns of the user's own with these names.
func TestMachineOfOldModels(t *testing.T) {
	p, problems := Load(project(nil))
	require.Empty(t, problems)
	data, err := json.Marshal(p.Model())
	require.NoError(t, err)
	var model map[string]any
	require.NoError(t, json.Unmarshal(data, &model))
	olaf := model["hosts"].(map[string]any)["olaf"].(map[string]any)
	for _, key := range machineKeys {
		delete(olaf, key)
	}
	for _, groups := range []any{nil, "a b"} {
		if olaf["groups"] = groups; groups == nil {
			delete(olaf, "groups")
		}
		data, err = json.Marshal(model)
		require.NoError(t, err)
		back, err := FromModel(data)
		require.NoError(t, err)
		require.Equal(t, defaultMachine(), back.Host("olaf").Machine)
		require.NotContains(t, back.Host("olaf").Own, "groups")
	}
}

func TestMachineProblems(t *testing.T) {
	a := func(cells string) map[string]string {
		return map[string]string{HostsFile: machineRows(cells, ",,,,,,,", ",,,,,,,"), K3sFile: "host,name,type,ip\n"}
	}
	check := func(cells string) map[string]string {
		files := a(",,,,,,,")
		files[ChecksFile] = "host,name,type,target,timeout,from\n" + cells + "\n"
		return files
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"order":             {a(",,,first,,,,"), `plans/hosts.csv:2: reboot_order "first": not a whole number from -1000000 to 1000000`},
		"order, fraction":   {a(",,,1.5,,,,"), `plans/hosts.csv:2: reboot_order "1.5": not a whole number from -1000000 to 1000000`},
		"delay":             {a(",,,,,,10m,"), "plans/hosts.csv:2: reboot_delay \"10m\": not a whole number from 0 to 86400\nhint: write 600"},
		"negative delay":    {a(",,,,,,-1,"), `plans/hosts.csv:2: reboot_delay "-1": not a whole number from 0 to 86400`},
		"strategy":          {a(",,,,,roling,,"), "plans/hosts.csv:2: strategy \"roling\": unknown strategy\nhint: did you mean \"rolling\"?"},
		"criticality":       {a(",,,,,,,urgent"), "plans/hosts.csv:2: criticality \"urgent\": unknown level\nhint: low, medium, high, critical"},
		"group":             {a(",,a/b,,,,,"), `plans/hosts.csv:2: groups "a/b": not a group: letters a-z, digits, and . _ - inside`},
		"role":              {a(",\"a\nb\",,,,,,"), `not a role`},
		"oneself":           {a(",,,,a,,,"), "plans/hosts.csv:2: depends_on \"a\": the host depends on itself\nhint: delete the name"},
		"unknown":           {a(",,,,b nobody,,,"), "plans/hosts.csv:2: depends_on \"nobody\": no host of this name in plans/hosts.csv\nhint: add it there, or correct the name"},
		"tag as dependency": {a(",,,,@x,,,"), "hint: write the names of hosts, separated by blanks or commas"},
		"container": {map[string]string{HostsFile: machineRows(",,,,,,,", ",,,,a-server,,,"), K3sFile: "host,name,type,ip\na,a-server,init,10.0.100.12\n"},
			"plans/hosts.csv:3: depends_on \"a-server\": no host of this name in plans/hosts.csv\nhint: did you mean its host, \"a\"?"},
		"cycle": {map[string]string{HostsFile: machineRows(",,,,b,,,", ",,,,c,,,", ",,,,a,,,"), K3sFile: "host,name,type,ip\n"},
			"plans/hosts.csv:2: depends_on \"b\": the hosts wait for each other: a → b → c → a\nhint: take one of the dependencies away"},
		"cycle of two": {map[string]string{HostsFile: machineRows(",,,,b,,,", ",,,,a,,,", ",,,,a,,,"), K3sFile: "host,name,type,ip\n"},
			"plans/hosts.csv:2: depends_on \"b\": the hosts wait for each other: a → b → a\nhint: take one of the dependencies away"},
		"recreate of a server": {map[string]string{HostsFile: machineRows(",,,,,recreate,,"), K3sFile: "host,name,type,ip\na,a-server,init,10.0.100.12\n"},
			"plans/hosts.csv:2: strategy \"recreate\": the host has the server \"a-server\", and all hosts of a group at once could cost etcd its quorum\nhint: write \"rolling\""},
		"reserved column": {map[string]string{HostsFile: "name,interface,ip,admin,checks\na,eno1,10.0.100.2,x,y\n", K3sFile: "host,name,type,ip\n"}, `k3splan uses this name itself`},

		"check of nobody":       {check("nobody,ssh,tcp,22,,"), "plans/checks.csv:2: host \"nobody\": there is no host \"nobody\" in the plan"},
		"check of an odd tag":   {check("@y,ssh,tcp,22,,"), "plans/checks.csv:2: host \"@y\": there is no tag \"y\" in the plan"},
		"check without a host":  {check(",ssh,tcp,22,,"), "plans/checks.csv:2: host: the cell is empty"},
		"check without a name":  {check("a,,tcp,22,,"), "plans/checks.csv:2: name: the cell is empty"},
		"two of a name":         {check("a,x,tcp,22,,\n*,x,tcp,23,,"), "plans/checks.csv:3: name \"x\": a has a check of this name already (plans/checks.csv:2)\nhint: give one of the two another name"},
		"type":                  {check("a,x,https,https://a/,,"), "plans/checks.csv:2: type \"https\": unknown type of check\nhint: write \"http\""},
		"http without a target": {check("a,x,http,,,"), "plans/checks.csv:2: target: an http check has no target\nhint: write a URL: http://10.0.100.5:8080/health"},
		"tcp without a target":  {check("a,x,tcp,,,"), "plans/checks.csv:2: target: a tcp check has no target"},
		"no command":            {check("a,x,command,,,"), "a command check has no target"},
		"no unit":               {check("a,x,unit,,,"), "a unit check has no target"},
		"no URL":                {check("a,x,http,karl:80,,"), "plans/checks.csv:2: target \"karl:80\": not a URL"},
		"ftp":                   {check("a,x,http,ftp://a/,,"), "target \"ftp://a/\": not a URL of http or https"},
		"no host in the URL":    {check("a,x,http,http://:80/,,"), "the URL has no host"},
		"port of the URL":       {check("a,x,http,http://a:70000/,,"), "the port of the URL is not one from 1 to 65535"},
		"login in the URL":      {check("a,x,http,http://me:hunter2@a/,,"), "plans/checks.csv:2: target \"http://…@a/\": a URL is copied to files"},
		"login, not escaped":    {check("a,x,http,http://me:hunter2/#?@a/,,"), "target \"http://…@a/\": not a URL"},
		"login without slashes": {check("a,x,http,http:me:hunter2@a,,"), "target \"…@a\": the URL has no host"},
		"login without scheme":  {check("a,x,http,me:hunter2@a,,"), "target \"…@a\": not a URL of http or https"},
		"login of a port":       {check("a,x,tcp,me:hunter2@a:22,,"), "target \"…@a:22\": neither an IPv4 address"},
		"IPv6 in the URL":       {check("a,x,http,http://[::1]:80/,,"), "the host of the URL is neither an IPv4 address nor the name of a machine"},
		"IPv6 before the port":  {check("a,x,tcp,[::1]:80,,"), "neither an IPv4 address nor the name of a machine before the port"},
		"port":                  {check("a,x,tcp,65536,,"), "plans/checks.csv:2: target \"65536\": not a port from 1 to 65535\nhint: write a port, or HOST:PORT: 5432, 10.0.100.5:5432"},
		"word as port":          {check("a,x,tcp,ssh,,"), "target \"ssh\": not a port"},
		"host of the port":      {check("a,x,tcp,a_b:22,,"), "target \"a_b:22\": neither an IPv4 address nor the name of a machine before the port"},
		"unit":                  {check("a,x,unit,a b,,"), "target \"a b\": not the name of a unit"},
		"unit from afar":        {check("a,x,unit,cron,,operator"), "plans/checks.csv:2: from \"operator\": a unit can only be asked on its host"},
		"from":                  {check("a,x,tcp,22,,hots"), "plans/checks.csv:2: from \"hots\": unknown place to check from\nhint: did you mean \"host\"?"},
		"timeout":               {check("a,x,tcp,22,0,"), "plans/checks.csv:2: timeout \"0\": not a whole number from 1 to 3600"},
		"timeout in words":      {check("a,x,tcp,22,30s,"), "hint: write 30"},
		"misplaced":             {map[string]string{"plans/Checks.csv": "x"}, "plans/Checks.csv: k3splan does not read this file\nhint: rename it: mv plans/Checks.csv plans/checks.csv"},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Load(project(test.files))
			require.Len(t, problems, 1, "%v", problems)
			p := problems[0]
			text := p.String()
			if p.Hint != "" {
				text += "\nhint: " + p.Hint
			}
			require.Contains(t, text, test.want)
			require.NotContains(t, text, "hunter2")
		})
	}
}

// A URL in a snippet may have a login, which nothing shows.
func TestTargetHasNoLogin(t *testing.T) {
	require.Equal(t, "http://…@a/", HealthCheck{Type: CheckHTTP, URL: "http://me:hunter2@a/"}.Target())
	require.Equal(t, "http://a/@me", HealthCheck{Type: CheckHTTP, URL: "http://a/@me"}.Target())
}

// Cycles are found if, and only if, the hosts cannot be brought into an order; each of them is one.
func TestCycles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "hosts")
		var hosts []*Host
		depends := map[string][]string{}
		for i := range n {
			name := fmt.Sprint("h", i)
			hosts = append(hosts, &Host{Name: name})
			for range rapid.IntRange(0, 3).Draw(t, "dependencies") {
				depends[name] = append(depends[name], fmt.Sprint("h", rapid.IntRange(0, n).Draw(t, "on")))
			}
		}
		cycles := Cycles(hosts, func(h *Host) []string { return depends[h.Name] })
		for _, cycle := range cycles {
			require.Equal(t, cycle[0], cycle[len(cycle)-1])
			require.Greater(t, len(cycle), 2)
			for i := range len(cycle) - 1 {
				require.Contains(t, depends[cycle[i]], cycle[i+1], strings.Join(cycle, " → "))
				require.GreaterOrEqual(t, cycle[i], cycle[0])
			}
		}
		// the definition: what is left when all without an open dependency are taken away
		left := map[string]bool{}
		for _, h := range hosts {
			left[h.Name] = true
		}
		for range n {
			for name := range left {
				open := false
				for _, on := range depends[name] {
					open = open || on != name && left[on]
				}
				if !open {
					delete(left, name)
				}
			}
		}
		require.Equal(t, len(left) > 0, len(cycles) > 0)
	})
}
