package hive_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

// evaluated are the examples as they are. Each is evaluated once, for all tests that look at it: that takes a second
// or two for each host.
var evaluated = map[string]*once{
	"rack": {example: "rack", expression: `{
		inherit check data;
		systems = ` + systems + `;
		texts = ` + fmt.Sprintf(units, `[ "karl" "olaf" "rolf" ]`) + `;
		find = ` + findServer + `;
		agent = {
			network = nodes.karl.config.systemd.services.k3splan-agent-network.script;
			create = nodes.karl.config.systemd.services.podman-karl-k3s-agent.serviceConfig.ExecStart;
		};
		scripts = ` + moduleScripts + `;
		image = ` + imageDefinitions + `;
	}`},
	"single": {example: "single", expression: `{
		inherit check;
		inherit (nodes.olaf.config.containers.olaf-server.config.systemd.services.k3s) preStart preStop;
	}`},
}

type once struct {
	example, expression string

	first   sync.Once
	value   data
	skipped bool
}

// of returns what the expression evaluates to.
func (o *once) of(t testing.TB) data {
	t.Helper()
	o.first.Do(func() {
		defer func() { o.skipped = t.Skipped() }()
		o.value = evaluate(t, o.expression, rendered(t, o.example, nil)).(map[string]any)
	})
	if o.skipped {
		t.Skip("SKIP: no evaluation harness with its sources")
	}
	require.NotNil(t, o.value, "the example %s does not evaluate: the first test that looks at it says why", o.example)
	return o.value
}

// part is the object at a path.
func (d data) part(t testing.TB, path ...string) data {
	t.Helper()
	return d.at(t, path...).(map[string]any)
}

// into decodes a part of a value.
func (d data) into(t testing.TB, target any, path ...string) {
	t.Helper()
	require.NoError(t, json.Unmarshal(marshal(t, d.at(t, path...)), target))
}

// checked returns what "evalhive.sh --check" prints, and its exit code, of a hive whose check was evaluated together
// with other things.
func checked(t testing.TB, check data) (stdout string, code int) {
	t.Helper()
	var out strings.Builder
	var messages map[string]struct{ FailedAssertions, Warnings []string }
	check.into(t, &messages, "messages")
	for host, said := range messages {
		for _, text := range said.FailedAssertions {
			fmt.Fprintf(&out, "ASSERTION\t%s\t%s\n", host, text)
			code = 1
		}
		for _, text := range said.Warnings {
			fmt.Fprintf(&out, "WARNING\t%s\t%s\n", host, text)
		}
	}
	file := filepath.Join(t.TempDir(), "definitions.json")
	require.NoError(t, os.WriteFile(file, marshal(t, check.at(t, "defs")), 0o600))
	options := exec.Command("python3", filepath.Join(nixtest.HarnessFolder(t), "optcheck.py"), file)
	found, err := options.Output()
	if err != nil {
		require.Equal(t, 1, options.ProcessState.ExitCode(), err)
		code = 1
	}
	return out.String() + string(found), code
}
