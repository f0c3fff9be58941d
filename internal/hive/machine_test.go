package hive_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

// What the tables say about a host is the default of k3splan.machine; a snippet sets what it names, by either
// name of the option; and the file on the host has what was evaluated.
func TestMachine(t *testing.T) {
	hosts := "name,interface,ip,admin,role,groups,reboot_order,depends_on,strategy,reboot_delay,criticality\n" +
		"olaf,eno1,192.168.1.10,olaf,Web Server,web,5,,,,high\n" +
		"ulf,eno1,192.168.1.13,ulf,,\"web, edge\",,olaf,blue-green,30,\n" +
		"karl,eno1,192.168.1.14,karl,,,,,,,\n"
	checks := "host,name,type,target,timeout,from\n" +
		"ulf,site,http,\"http://192.168.1.13/${x}?a=\"\"b\"\"\",3,host\n*,ssh,tcp,22,,\nulf,disk,command,test -e /srv && echo ''${HOME},,\nulf,cron,unit,cron,,\n"
	value := evaluate(t, `builtins.mapAttrs (name: node: {
		machine = node.config.k3splan.machine;
		lab = node.config.lab.machine;
		file = node.config.environment.etc."k3splan/machine.json".text;
		server = node.config.k3splan.network.init_server;
	}) nodes`, renderedWithWarnings(t, "single", map[string]string{
		"plans/hosts.csv": hosts, "plans/checks.csv": checks,
		"nixConfigs/olaf.nix": `{ k3splan.machine = { rebootOrder = 1; dependencies = [ "karl" ]; }; }`,
		"nixConfigs/karl.nix": `{ lib, ... }: {
			lab.machine = {
				role = "database";
				groups = [ "data" ];
				rebootOrder = 20;
				healthChecks = [
					{ name = "api"; type = "http"; url = "https://192.168.1.14:8443/health"; expectStatus = 204; expectBody = "ok"; insecure = true; }
					{ name = "postgres"; type = "tcp"; port = 5432; timeout = 5; }
				];
				orchestration = { deployStrategy = "recreate"; rebootDelay = 120; criticalityLevel = lib.mkForce "critical"; };
			};
			systemd.services.its-own.script = "true";
		}`,
	})).(map[string]any)
	read := func(host string) (m plan.Machine) {
		t.Helper()
		part := value[host].(map[string]any)
		require.NoError(t, json.Unmarshal(marshal(t, part["machine"]), &m))
		require.Equal(t, part["machine"], part["lab"])
		var file map[string]any
		require.NoError(t, json.Unmarshal([]byte(part["file"].(string)), &file))
		require.Equal(t, host, file["host"])
		require.Contains(t, file["services"], "sshd")
		require.Equal(t, host == "karl", contains(file["services"], "its-own"))
		delete(file, "host")
		delete(file, "services")
		require.Equal(t, part["machine"], file)
		for _, check := range m.HealthChecks {
			require.Empty(t, check.Wrong())
		}
		return m
	}
	ssh := plan.HealthCheck{Name: "ssh", Type: plan.CheckTCP, Port: 22, Timeout: 10, From: plan.FromOperator}
	require.Equal(t, plan.Machine{
		Role: "Web Server", Groups: []string{"web"}, RebootOrder: 1, Dependencies: []string{"karl"}, HealthChecks: []plan.HealthCheck{ssh},
		Orchestration: plan.Orchestration{Strategy: plan.Rolling, RebootDelay: 600, Criticality: plan.High},
	}, read("olaf"))
	require.Equal(t, plan.Machine{
		Groups: []string{"edge", "web"}, RebootOrder: 100, Dependencies: []string{"olaf"}, HealthChecks: []plan.HealthCheck{
			{Name: "cron", Type: plan.CheckUnit, Unit: "cron.service", Timeout: 10, From: plan.FromHost},
			{Name: "disk", Type: plan.CheckCommand, Command: "test -e /srv && echo ''${HOME}", Timeout: 10, From: plan.FromHost},
			{Name: "site", Type: plan.CheckHTTP, URL: `http://192.168.1.13/${x}?a="b"`, Timeout: 3, From: plan.FromHost},
			ssh,
		},
		Orchestration: plan.Orchestration{Strategy: plan.BlueGreen, RebootDelay: 30, Criticality: plan.Medium},
	}, read("ulf"))
	require.Equal(t, plan.Machine{
		Role: "database", Groups: []string{"data"}, RebootOrder: 20, Dependencies: []string{}, HealthChecks: []plan.HealthCheck{
			{Name: "api", Type: plan.CheckHTTP, URL: "https://192.168.1.14:8443/health", ExpectStatus: 204, ExpectBody: "ok", Insecure: true, Timeout: 10, From: plan.FromOperator},
			{Name: "postgres", Type: plan.CheckTCP, Port: 5432, Timeout: 5, From: plan.FromOperator},
		},
		Orchestration: plan.Orchestration{Strategy: plan.Recreate, RebootDelay: 120, Criticality: plan.Critical},
	}, read("karl"))
}

func contains(list any, item string) bool {
	for _, one := range list.([]any) {
		if one == item {
			return true
		}
	}
	return false
}
