package hive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/plan/plantest"
	"k3splan/internal/project"
)

// bigProject makes a project of n hosts, a server or an agent on each.
func bigProject(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	files := plantest.Rack(n)
	files["secrets/all.pub"], files["secrets/passwd"] = aliceKey+"\n", poisonHash+"\n"
	for file, content := range files {
		name := filepath.Join(dir, file)
		require.NoError(b, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(b, os.WriteFile(name, []byte(content), 0o600))
	}
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(b, err)
	return dir
}

// BenchmarkRender reads, validates and renders a whole project, in memory.
func BenchmarkRender(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := bigProject(b, n)
			b.ReportAllocs()
			for b.Loop() {
				p, problems, err := project.Load(dir)
				if err != nil || problems.Errors() > 0 {
					b.Fatal(err, problems)
				}
				tree, err := hive.Render(p, k3splan.Files)
				if err != nil || len(tree) < n {
					b.Fatal(err)
				}
			}
		})
	}
}
