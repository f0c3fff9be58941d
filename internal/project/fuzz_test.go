package project

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	"k3splan/internal/plan"

	"github.com/stretchr/testify/require"
)

func FuzzManifest(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Secret\ndata: {a: b}\n---\n- x\n"))
	f.Add([]byte(`{"apiVersion": "v1", "kind": "List", "items": [{"kind": 1}, null, *a]}`))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, found := range checkManifest("manifests/a.yaml", content) {
			require.NotEmpty(t, found.code)
			require.NotEmpty(t, found.message)
		}
	})
}

func FuzzK3sConfig(f *testing.F) {
	f.Add([]byte("tls-san+: [a, 1, true]\n--debug: true\nnode-label: a=b,c=d\n"))
	f.Add([]byte("<<: {a: b}\n? [a]\n: x\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		config, problems := readK3sConfig(fstest.MapFS{"k3s/server.yaml": {Data: content}}, serverRole, &plan.Plan{}, nil)
		if problems.Errors() > 0 {
			return
		}
		_, err := json.Marshal(config)
		require.NoError(t, err)
		for _, key := range lists {
			if value, given := config[key]; given {
				require.IsType(t, []string{}, value)
			}
		}
	})
}
