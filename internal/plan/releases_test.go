package plan

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/release"
)

// versioned is a plan of one host with k3s and the lines of versions.
func versioned(versions string) fstest.MapFS {
	return fstest.MapFS{
		HostsFile:   {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.100.2,olaf\n")},
		K3sFile:     {Data: []byte("host,name,type,ip\nolaf,a,init,10.0.100.12\n")},
		NetworkFile: {Data: []byte("netmask: 24\ngateway: 10.0.100.1\nversions:\n  " + strings.ReplaceAll(versions, "\n", "\n  ") + "\n")},
	}
}

// told returns problems as a user reads them, with their hints.
func told(problems diag.Problems) (lines []string) {
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%s %s: %s (%s)", p.Severity, strings.TrimPrefix(p.Place(), "plans/"), p.Message, p.Hint))
	}
	return lines
}

// What a user of each release and minor version reads in December 2026.
func TestReleases(t *testing.T) {
	const (
		release2411 = "warning network.yaml:4: NixOS 24.11 has had no security updates since 2025-06-30 "
		release2505 = "warning network.yaml:4: NixOS 25.05 has had no security updates since 2025-12-31 "
		release2511 = "warning network.yaml:4: NixOS 25.11 has had no security updates since 2026-06-30 "
		upgrade     = "(k3splan upgrade takes the first of %d steps to NixOS 26.05 with k3s 1.35: NixOS %s with k3s %s)"
	)
	ended := func(minor, date string) string {
		return "warning network.yaml:5: k3s " + minor + " reached its end of life on " + date + " and gets no security updates "
	}
	step := func(steps int, nixos, k3s string) string { return fmt.Sprintf(upgrade, steps, nixos, k3s) }
	to2511 := step(5, "25.11", "1.32")
	for _, test := range []struct {
		nixos, k3s string
		want       []string
	}{
		{"nixos-24.11", "1.31", []string{release2411 + to2511, ended("1.31", "2025-10-28") + to2511}},
		{"nixos-24.11", "v1.31.14+k3s1", []string{release2411 + to2511, ended("1.31", "2025-10-28") + to2511}},
		{"nixos-24.11", "1.27", []string{
			release2411 + "(NixOS 26.05 with k3s 1.35 is supported; a running cluster takes one minor version after the other)",
			"error network.yaml:5: NixOS 24.11 does not have k3s 1.27 (it has 1.31; a running cluster gets there from its present versions by k3splan upgrade)"}},
		{"release-25.05", "1.32", []string{
			release2505 + step(5, "25.11", "1.32"), ended("1.32", "2026-02-28") + step(5, "25.11", "1.32")}},
		{"nixos-25.11", "1.31", []string{
			release2511 + step(5, "25.11", "1.32"),
			"error network.yaml:5: k3s 1.31 reached its end of life on 2025-10-28; NixOS 25.11 marks it as insecure and does not build it " +
				`(set versions.k3s and versions.permit_ended to "1.32", the first of 5 steps to NixOS 26.05 with k3s 1.35; then k3splan deploy and k3splan upgrade)`}},
		{"nixos-25.11", "1.31\npermit_ended: 1.31", []string{
			release2511 + step(5, "25.11", "1.32"), ended("1.31", "2025-10-28") + step(5, "25.11", "1.32")}},
		{"nixos-24.11", "1.35", []string{
			release2411 + "(NixOS 26.05 with k3s 1.35 is supported; a running cluster takes one minor version after the other)",
			"warning network.yaml:5: NixOS 24.11 ended without k3s 1.35, as far as this k3splan knows (it has 1.28, 1.29, 1.30, 1.31; k3s 1.35 is in NixOS 26.05)"}},
		{"nixos-24.11", "1.36", []string{
			release2411 + "(NixOS 26.05 with k3s 1.35 is supported; a running cluster takes one minor version after the other)",
			"warning network.yaml:5: NixOS 24.11 ended without k3s 1.36, as far as this k3splan knows (it has 1.28, 1.29, 1.30, 1.31; no release that is out has 1.36)"}},
		{"nixos-25.11", "1.33", []string{
			release2511 + step(3, "25.11", "1.34"), ended("1.33", "2026-06-28") + step(3, "25.11", "1.34")}},
		{"nixos-25.11", "1.34", []string{
			release2511 + step(2, "26.05", "1.34"), ended("1.34", "2026-10-27") + step(2, "26.05", "1.34")}},
		{"nixos-26.05", "1.34", []string{ended("1.34", "2026-10-27") + "(k3splan upgrade takes the step to NixOS 26.05 with k3s 1.35)"}},
		{"nixos-26.05", "1.35", nil},
		{"nixos-26.05", "1.36", nil}, // nixpkgs may have got it since: evaluation shows
		{"nixos-26.05", "1.31", []string{
			"error network.yaml:5: NixOS 26.05 does not have k3s 1.31 (it has 1.35; a running cluster gets there from its present versions by k3splan upgrade)"}},
		{"nixos-26.11", "1.35", nil},
		{"nixos-26.11", "1.36", nil},
		{"nixos-27.05", "1.39", nil}, // of the future
		{"nixos-unstable", "1.35", nil},
		{"nixos-unstable", "1.31", []string{ended("1.31", "2025-10-28") + "(NixOS 26.05 with k3s 1.35 is supported; a running cluster takes one minor version after the other)"}},
		{"<nixpkgs>", "1.35", nil},
		{"nixos-26.05", "1.35\npermit_ended: 1.33", []string{"error network.yaml:6: not the minor version of versions.k3s (delete the key: it has no effect)"}},
	} {
		t.Run(test.nixos+" "+test.k3s, func(t *testing.T) {
			_, problems := Load(versioned("nixos: " + test.nixos + "\nk3s: " + test.k3s))
			assert.Equal(t, test.want, told(problems))
		})
	}
}

// Nothing is ended on its last day, and the plan of a new project has no warning for as long as its release
// is supported.
func TestReleasesOfOtherDays(t *testing.T) {
	for day, want := range map[string]int{"2025-06-30": 0, "2025-07-02": 1, "2025-10-28": 1, "2025-10-30": 2} {
		setToday(t, day)
		_, problems := Load(versioned("nixos: nixos-24.11\nk3s: 1.31"))
		require.Len(t, problems, want, day)
		require.Zero(t, problems.Errors())
	}
	setToday(t, "2027-01-02")
	_, problems := Load(versioned("nixos: nixos-26.05\nk3s: 1.35"))
	require.Equal(t, []string{"warning network.yaml:4: NixOS 26.05 has had no security updates since 2026-12-31 (a newer version of k3splan knows the next release)"}, told(problems))
	setToday(t, "2028-01-02")
	_, problems = Load(versioned("nixos: nixos-26.11\nk3s: 1.36"))
	require.Equal(t, []string{
		"warning network.yaml:4: NixOS 26.11 has had no security updates since 2027-06-30 (a newer version of k3splan knows the next release)",
		"warning network.yaml:5: k3s 1.36 reached its end of life on 2027-06-28 and gets no security updates (a newer version of k3splan knows the next release)",
	}, told(problems))
}

func setToday(t *testing.T, day string) {
	t.Helper()
	today, err := time.Parse(time.DateOnly, day)
	require.NoError(t, err)
	t.Setenv("SOURCE_DATE_EPOCH", fmt.Sprint(today.Add(time.Hour).Unix()))
}

// A plan without k3s is only told of its NixOS.
func TestReleaseWithoutK3s(t *testing.T) {
	fsys := versioned("nixos: nixos-24.11\nk3s: 1.31")
	fsys[K3sFile].Data = []byte("host,name,type,ip\n")
	_, problems := Load(fsys)
	require.Len(t, problems, 1)
	require.Equal(t, "release-ended", problems[0].Code)
}

func TestState(t *testing.T) {
	for _, test := range []struct {
		state, column string
		want          string // of olaf
		problem       string
	}{
		{"", "", release.FirstState, ""},
		{"state: 26.05", "", "26.05", ""},
		{"state: '25.11'", "24.11", "24.11", ""},
		{"", "25.05", "25.05", ""},
		{"state: 26.11", "", release.FirstState, "network.yaml:6: NixOS 26.05 cannot have data in the formats of a newer release"},
		{"state: 26.5", "", release.FirstState, "network.yaml:6: not a release of NixOS (write 26.05)"},
		{"state: 25.5", "", release.FirstState, "network.yaml:6: not a release of NixOS (write 25.05)"},
		{"state: nixos-25.11", "", release.FirstState, "network.yaml:6: not a release of NixOS (write 25.11)"},
		{"", "\"25,05\"", "25,05", "hosts.csv:2: not a release of NixOS (write 25.05)"},
		{"state: 21.11", "", release.FirstState, "network.yaml:6: NixOS keeps containers elsewhere with a state of this age"},
		{"", "26.11", "26.11", "hosts.csv:2: NixOS 26.05 cannot have data in the formats of a newer release"},
		{"", "yes", "yes", "hosts.csv:2: not a release of NixOS (the release that the machine was installed with, in the form 26.05)"},
	} {
		fsys := versioned("nixos: nixos-26.05\nk3s: 1.35\n" + test.state)
		fsys[HostsFile].Data = []byte("name,interface,ip,admin,state_version\nolaf,eno1,10.0.100.2,olaf," + test.column + "\n")
		p, problems := Load(fsys)
		assert.Equal(t, test.want, p.Host("olaf").State)
		if test.problem == "" {
			assert.Empty(t, problems, "%v", test)
		} else if assert.Len(t, problems, 1, "%v", test) {
			assert.Contains(t, told(problems)[0], test.problem)
			assert.NotEmpty(t, problems[0].Hint)
		}
		assert.Equal(t, test.want, p.Model().Hosts["olaf"]["state_version"])
	}
}

// An agent's name must not be that of a folder in /run; other containers and hosts have none there.
func TestNamesOfFoldersInRun(t *testing.T) {
	fsys := fstest.MapFS{
		HostsFile:   {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.100.2,olaf\nsystemd,eno1,10.0.100.3,olaf\nulf,eno1,10.0.100.4,olaf\n")},
		K3sFile:     {Data: []byte("host,name,type,ip\nolaf,dbus,init,10.0.100.12\nolaf,user,agent,10.0.100.22\nsystemd,worker,agent,10.0.100.23\nulf,nscd,agent,10.0.100.24\n")},
		NetworkFile: {Data: []byte("netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: 1.35}\n")},
	}
	_, problems := Load(fsys)
	require.Equal(t, []string{
		"error k3s.csv:3: hosts have a /run/user, and NixOS removes the folder of an agent's name there when the agent stops (choose another one, such as user-agent)",
		"error k3s.csv:5: hosts have a /run/nscd, and NixOS removes the folder of an agent's name there when the agent stops (choose another one, such as nscd-agent)",
	}, told(problems))
	for _, name := range runFolders {
		assert.True(t, isHostName(name), "%s cannot be the name of an agent anyway", name)
	}
}

func TestNixOfSources(t *testing.T) {
	for text, want := range map[string]string{
		"nixos-24.11": "2.3.17", "25.11": "2.18", "nixos-26.05-small": "2.18", "nixos-28.11": "2.18", "nixos-unstable": "2.18", "master": "2.18",
		"<nixpkgs>": "", "../nixpkgs": "", "0123456789012345678901234567890123456789": "", "https://example.org/me/nixpkgs#mine": "",
	} {
		source, err := ParseSource(SourceNixpkgs, text)
		require.NoError(t, err)
		assert.Equal(t, want, source.Nix(), text)
	}
}

// The table in the documentation is that of the code.
func TestReleasesInTheDocumentation(t *testing.T) {
	var rows strings.Builder
	for _, r := range release.All() {
		ends := release.Date(r.Ends)
		if r.Expected {
			ends += " (expected)"
		}
		var k3s []string
		for _, minor := range r.K3s {
			if r.Insecure(minor) {
				minor += " (insecure)"
			}
			k3s = append(k3s, minor)
		}
		name := r.Name
		if r.Released.IsZero() {
			name += " (not released yet)"
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", name, ends, strings.Join(k3s, ", "), r.Nix)
	}
	text, err := os.ReadFile("../../docs/tables.md")
	require.NoError(t, err)
	require.Contains(t, string(text), "|---|---|---|---|\n"+rows.String()+"\n")
}
