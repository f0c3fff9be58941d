package rollout

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the script says of containers that run, with the forms that NixOS, nspawn and podman have.
func TestRunningScript(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), mode))
	}
	put("system/etc/nixos-containers/olaf-s.conf", "AUTO_START=1\nSYSTEM_PATH="+dir+"/new-container\nEXTRA_NSPAWN_FLAGS=\"\"\n", 0o644)
	put("start", "#!/bin/sh -e\n\nexec podman run \\\n  --name='olaf-a' \\\n  --log-driver=journald \\\n  -v '/var/lib/x:/y:ro' \\\n  '--label=a b' \\\n  'docker.io/rancher/k3s:v1.31.14-k3s1' \\\n  agent '--node-label=key=it'\\''s'\n", 0o755)
	unit := "[Service]\nExecStart=" + dir + "/start \n"
	put("system/etc/systemd/system/podman-olaf-a.service", unit, 0o644)
	put("older/etc/nixos-containers/olaf-s.conf", "SYSTEM_PATH="+dir+"/new-container\n", 0o644)
	put("older/etc/systemd/system/podman-olaf-a.service", "[Service]\nExecStart=/bin/sh run \\\n  --name=olaf-a \\\n  image agent\n", 0o644)
	put("before/etc/systemd/system/podman-olaf-a.service", unit, 0o644)
	put("bin/nixos-container", "#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'run olaf-s -- readlink' ] && cat "+dir+"/container\n", 0o755)
	put("bin/podman", "#!/bin/sh\ncase $5 in *CreateCommand*) cat "+dir+"/command;; *StartedAt*) cat "+dir+"/started;; esac\n", 0o755)
	put("new-container/x", "", 0o644)
	require.NoError(t, os.Symlink(filepath.Join(dir, "system"), filepath.Join(dir, "current")))

	good := strings.Join([]string{"/nix/store/x/bin/podman", "run", "--name=olaf-a", "--log-driver=journald", "-v", "/var/lib/x:/y:ro", "--label=a b",
		"docker.io/rancher/k3s:v1.31.14-k3s1", "agent", "--node-label=key=it's", ""}, "\n")
	run := func(words ...string) string {
		script := strings.ReplaceAll(runningScript, "/run/current-system)", dir+"/current)")
		cmd := exec.Command("sh", append([]string{"-s", "--"}, words...)...)
		cmd.Stdin = strings.NewReader("{\n" + script + "\n} < /dev/null\n")
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	for name, test := range map[string]struct {
		container, command, started, unitBefore, want string
	}{
		"as deployed":          {dir + "/new-container\n", good, "4000000000\n", unit, ""},
		"unit as before":       {dir + "/new-container\n", good, "1000\n", unit, ""},
		"the old container":    {"/nix/store/old\n", good, "4000000000\n", unit, "differs the container of server olaf-s runs /nix/store/old and not " + dir + "/new-container\n"},
		"no server":            {"", good, "4000000000\n", unit, "differs the container of server olaf-s runs nothing and not " + dir + "/new-container\n"},
		"other arguments":      {dir + "/new-container\n", strings.Replace(good, "v1.31.14", "v1.30.1", 1), "4000000000\n", unit, "differs podman runs the agent olaf-a with other arguments than were deployed\n"},
		"one argument missing": {dir + "/new-container\n", strings.Replace(good, "--log-driver=journald\n", "", 1), "4000000000\n", unit, "differs podman runs the agent olaf-a with other arguments than were deployed\n"},
		"no agent":             {dir + "/new-container\n", "", "", unit, "differs podman does not run the agent olaf-a\n"},
		"the old agent":        {dir + "/new-container\n", good, "1000\n", unit + "X-Restart-Triggers=old\n", "differs the agent olaf-a was not restarted with its new unit\n"},
		"a restarted agent":    {dir + "/new-container\n", good, "4000000000\n", unit + "X-Restart-Triggers=old\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			put("container", test.container, 0o644)
			put("command", test.command, 0o644)
			put("started", test.started, 0o644)
			put("before/etc/systemd/system/podman-olaf-a.service", test.unitBefore, 0o644)
			require.Equal(t, test.want, run(dir+"/system", dir+"/before", "olaf-s", "olaf-a"))
			require.Empty(t, run(dir+"/system", dir+"/before", "", ""))
		})
	}
	put("container", dir+"/new-container\n", 0o644)
	put("command", "podman\nrun\n--name=olaf-a\nimage\nagent\n", 0o644)
	put("started", "4000000000\n", 0o644)
	require.Empty(t, run(dir+"/older", "", "olaf-s", "olaf-a"))
	require.Equal(t, "differs podman runs the agent olaf-a with other arguments than were deployed\n", run(dir+"/system", "", "olaf-s", "olaf-a"))
}
