package evaluate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
)

// evaluator stands in for Colmena's: hosts say themselves what they are.
const evaluator = `{ rawHive, ... }: {
  nodes = builtins.mapAttrs (name: host: {
    config = rec {
      warnings = host.warnings or [ ];
      assertions = host.assertions or [ ];
      deployment = { targetUser = "deploy"; buildOnTarget = false; keys = { }; } // host.deployment or { };
      k3splan.machine = "the machine of ${name}";
      system.nixos.release = "26.05";
      system.build.toplevel = derivation {
        name = "nixos-system-${name}";
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-c" host.script or "echo ${host.text or name} > $out" ];
      };
    };
  }) rawHive;
}`

// world is a project with a Colmena and a Nix that count how often they are called.
type world struct {
	t   *testing.T
	dir string
	Request
}

func newWorld(t *testing.T, hive string) *world {
	t.Helper()
	nixtest.Needs(t, "nix-instantiate", "nix-store")
	nixtest.SetPrivate(t)
	require.NoError(t, exec.Command("nix-store", "--init").Run()) // two that begin at once would both make the links of a new store
	w := &world{t: t, dir: nixtest.TempDir(t)}
	w.write("generated/hive.nix", hive)
	w.write("generated/sources.nix", "{ }")
	w.write("bin/evaluator.json", `{"files": {"eval.nix": `+quoted(evaluator)+`, "options.nix": "1", "modules.nix": "1"}, "nix": ["2", "x", "/nix/store"]}`)
	w.program("colmena", `cat `+w.path("bin/evaluator.json"))
	t.Setenv("PATH", w.path("bin")+":"+os.Getenv("PATH"))
	w.Request = Request{
		Dir: w.dir, Hive: w.path("generated/hive.nix"), Colmena: "colmena", Inputs: map[string]fingerprint.Inputs{},
		Log: func(host string) (io.WriteCloser, error) { return files.Append(w.path(host + ".log")) },
	}
	return w
}

func quoted(text string) string {
	out := new(strings.Builder)
	fmt.Fprintf(out, "%q", text)
	return out.String()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, filepath.FromSlash(name)) }

func (w *world) write(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
	require.NoError(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
}

func (w *world) read(name string) string {
	text, _ := os.ReadFile(w.path(name))
	return string(text)
}

func (w *world) program(name, script string) {
	w.t.Helper()
	w.write("bin/"+name, "#!/bin/sh\n"+script+"\n")
	require.NoError(w.t, os.Chmod(w.path("bin/"+name), 0o700))
}

// nix puts a script before the real nix-instantiate, which runs afterwards. $hosts are those that it is to evaluate.
func (w *world) nix(script string) {
	w.t.Helper()
	real, err := exec.LookPath("nix-instantiate")
	require.NoError(w.t, err)
	w.program("nix-instantiate", `for word; do if [ "$last" = hosts ]; then hosts=$word; fi; last=$word; done
`+script+`
exec `+real+` "$@"`)
}

// inputs lets hosts have inputs, with a text that can change.
func (w *world) inputs(text string, names ...string) {
	for _, name := range names {
		w.Inputs[name] = fingerprint.Inputs{Data: map[string]string{"host.name": name, "text": text}}
	}
}

func (w *world) hosts(names ...string) *Result {
	w.t.Helper()
	result, err := Hosts(w.t.Context(), w.Request, names)
	require.NoError(w.t, err)
	return result
}

func names[V any](hosts map[string]V) []string { return slices.Sorted(maps.Keys(hosts)) }

func TestHosts(t *testing.T) {
	w := newWorld(t, `{ sources ? null }: {
		olaf = { warnings = [ "old" ]; deployment = { buildOnTarget = true; tags = [ "a" ]; }; };
		ulf = { };
		rolf = { assertions = [ { assertion = false; message = "rolf has no disk"; } { assertion = true; message = "fine"; } ]; };
	}`)
	r := w.hosts("olaf", "ulf", "rolf")
	require.Equal(t, []string{"olaf", "ulf"}, names(r.Hosts))
	olaf := r.Hosts["olaf"]
	require.Regexp(t, `^/.*/store/[a-z0-9]{32}-nixos-system-olaf\.drv$`, olaf.Derivation)
	require.Regexp(t, `^/.*/store/[a-z0-9]{32}-nixos-system-olaf$`, olaf.System)
	require.FileExists(t, olaf.Derivation, "it is in the store")
	require.Equal(t, []string{"old"}, olaf.Warnings)
	require.True(t, olaf.BuildsOnTarget())
	require.False(t, r.Hosts["ulf"].BuildsOnTarget())
	require.JSONEq(t, `["a"]`, string(olaf.Deployment["tags"]))
	require.JSONEq(t, `"the machine of olaf"`, string(olaf.Metadata["machine"]))
	require.EqualError(t, r.Err(), "rolf: 1 assertion failed:\n- rolf has no disk")
	require.Equal(t, []string{"olaf", "rolf", "ulf"}, r.Evaluated)
}

// One host that fails does not hide the others, wherever it stands and how often that happens.
func TestBrokenHosts(t *testing.T) {
	w := newWorld(t, `builtins.listToAttrs (map (name: { inherit name; value =
		if builtins.elem name [ "a" "d" "h" ] then throw "the snippet of ${name}" else { }; }) [ "a" "b" "c" "d" "e" "f" "g" "h" ])`)
	w.nix(`echo "$hosts" >> ` + w.path("calls"))
	r := w.hosts("a", "b", "c", "d", "e", "f", "g", "h")
	require.Equal(t, []string{"b", "c", "e", "f", "g"}, names(r.Hosts))
	require.Equal(t, []string{"a", "d", "h"}, names(r.Failed))
	for name, err := range r.Failed {
		require.Contains(t, err.Error(), "the snippet of "+name)
		require.NotContains(t, err.Error(), "\x1b")
		require.Contains(t, w.read(name+".log"), "while evaluating", "the trace")
		require.NotContains(t, err.Error(), "while evaluating")
	}
	require.Empty(t, w.read("b.log"))
	require.LessOrEqual(t, strings.Count(w.read("calls"), `"b"`), 2, "what was evaluated stays")
	require.Contains(t, r.Err().Error(), "the snippet of a")
	require.Contains(t, r.Err().Error(), "the snippet of h")
}

// What was evaluated while somebody edited a snippet is neither used nor remembered: the old text would bring it back.
func TestChangedMeanwhile(t *testing.T) {
	w := newWorld(t, `{ olaf = { }; ulf = { }; }`)
	w.inputs("old", "olaf", "ulf")
	after := maps.Clone(w.Inputs)
	w.Again = func() (map[string]fingerprint.Inputs, error) { return after, nil }
	after["olaf"] = fingerprint.Inputs{Data: map[string]string{"host.name": "olaf", "text": "new"}}
	r := w.hosts("olaf", "ulf")
	require.Equal(t, []string{"ulf"}, names(r.Hosts))
	require.EqualError(t, r.Err(), "olaf: files that it is made from changed while it was evaluated")
	require.Equal(t, "run the command again", diag.HintOf(r.Err()))
	after["olaf"] = w.Inputs["olaf"]
	r = w.hosts("olaf", "ulf")
	require.Equal(t, []string{"olaf"}, r.Evaluated)
	require.NoError(t, r.Err())
	w.Again = func() (map[string]fingerprint.Inputs, error) { return nil, errors.New("gone") }
	require.Empty(t, w.hosts("olaf", "ulf").Evaluated, "nothing was evaluated that could have changed")
	w.inputs("new", "olaf")
	_, err := Hosts(t.Context(), w.Request, []string{"olaf"})
	require.ErrorContains(t, err, "gone")
}

func TestBrokenHive(t *testing.T) {
	w := newWorld(t, `{ a = { }; b = { }; c = `)
	w.nix(`echo "$hosts" >> ` + w.path("calls"))
	_, err := Hosts(t.Context(), w.Request, []string{"a", "b", "c"})
	require.ErrorContains(t, err, "the hive cannot be evaluated")
	require.ErrorContains(t, err, "syntax error")
	for _, alone := range []string{`["a"]`, `["b"]`} { // a process is started again where the new store is busy
		require.NotContains(t, w.read("calls"), alone, "nothing is tried host by host")
	}
}

func TestUnsupported(t *testing.T) {
	w := newWorld(t, `{ a = { }; }`)
	w.program("colmena", "echo 'error: unrecognized subcommand' >&2; exit 2")
	_, err := Hosts(t.Context(), w.Request, []string{"a"})
	var unsupported *UnsupportedError
	require.ErrorAs(t, err, &unsupported)
	require.ErrorContains(t, err, "unrecognized subcommand")
}

// A process that is killed for its memory is replaced by smaller ones, then by one that collects garbage.
func TestKilledForMemory(t *testing.T) {
	hive := `{ a = { }; b = { }; c = { }; d = { }; e = { }; }`
	all := []string{"a", "b", "c", "d", "e"}
	t.Run("several hosts", func(t *testing.T) {
		w := newWorld(t, hive)
		w.Memory = 4 << 30
		w.nix(`echo "$hosts" >> ` + w.path("calls") + `
case $hosts in *,*) kill -9 $$ ;; esac`)
		require.Equal(t, all, names(w.hosts(all...).Hosts))
		require.Contains(t, w.read("calls"), ",")
	})
	t.Run("one host", func(t *testing.T) {
		w := newWorld(t, hive)
		w.nix(`echo "$hosts $GC_INITIAL_HEAP_SIZE" >> ` + w.path("calls") + `
if [ -n "$GC_INITIAL_HEAP_SIZE" ]; then kill -9 $$; fi`)
		require.Equal(t, all, names(w.hosts(all...).Hosts))
		require.Regexp(t, `\["a"\] [0-9]+\n`, w.read("calls"))
		require.Contains(t, w.read("calls"), "[\"a\"] \n")
	})
	t.Run("never enough", func(t *testing.T) {
		w := newWorld(t, hive)
		w.nix(`case $hosts in *'"c"'*) kill -9 $$ ;; esac`)
		r := w.hosts(all...)
		require.Equal(t, []string{"a", "b", "d", "e"}, names(r.Hosts))
		require.ErrorContains(t, r.Failed["c"], "memory")
	})
}

// With little memory fewer hosts are evaluated by a process, and fewer processes run at a time.
func TestMemoryIsKept(t *testing.T) {
	w := newWorld(t, `{ a = { }; b = { }; c = { }; d = { }; e = { }; }`)
	w.Memory = 500 << 20
	w.nix(`echo "begin $hosts $GC_INITIAL_HEAP_SIZE" >> ` + w.path("calls"))
	require.Len(t, w.hosts("a", "b", "c", "d", "e").Hosts, 5)
	calls := w.read("calls")
	require.NotContains(t, calls, ",")
	require.Equal(t, 5, strings.Count(calls, fmt.Sprintf("%d\n", 500<<20)))
}

func TestRemembered(t *testing.T) {
	hive := `{ a = { }; b = { }; c = { }; }`
	begin := func(t *testing.T) *world {
		w := newWorld(t, hive)
		w.inputs("1", "a", "b", "c")
		require.Equal(t, []string{"a", "b"}, w.hosts("a", "b").Evaluated)
		return w
	}
	t.Run("again", func(t *testing.T) {
		w := begin(t)
		before := w.hosts("a", "b")
		w.nix("exit 1")
		r := w.hosts("a", "b")
		require.Empty(t, r.Evaluated)
		require.Equal(t, before, r)
	})
	for what, change := range map[string]func(w *world){
		"another input": func(w *world) { w.inputs("2", "a") },
		"something without a hash": func(w *world) {
			in := w.Inputs["a"]
			in.Loose = []string{"reads /etc"}
			w.Inputs["a"] = in
		},
		"no inputs":      func(w *world) { delete(w.Inputs, "a") },
		"a damaged file": func(w *world) { w.write(".k3splan/evaluations/a.json", "{") },
		"that of another host": func(w *world) {
			w.write(".k3splan/evaluations/a.json", w.read(".k3splan/evaluations/b.json"))
		},
		"a lost derivation": func(w *world) {
			derivation := w.hosts("a").Hosts["a"].Derivation
			require.NoError(w.t, os.RemoveAll(w.path(".k3splan/evaluations/roots")))
			out, err := exec.Command("nix-store", "--delete", derivation).CombinedOutput()
			require.NoError(w.t, err, string(out))
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := begin(t)
			change(w)
			require.Equal(t, []string{"a"}, w.hosts("a", "b").Evaluated)
		})
	}
	t.Run("what was found with another store does not matter", func(t *testing.T) {
		w := begin(t)
		w.write(".k3splan/evaluations/b.json", `{"key": "x", "host": {"derivation": "/elsewhere/store/b.drv"}}`)
		w.inputs("new", "a")
		require.Equal(t, []string{"a"}, w.hosts("a").Evaluated)
	})
	for what, change := range map[string]func(w *world){
		"another Colmena": func(w *world) {
			w.write("bin/evaluator.json", strings.Replace(w.read("bin/evaluator.json"), "26.05", "26.11", 1))
		},
		"another Nix": func(w *world) {
			w.write("bin/evaluator.json", strings.Replace(w.read("bin/evaluator.json"), `["2"`, `["3"`, 1))
		},
		"other options of Nix": func(w *world) { w.Options = []string{"--option", "allow-import-from-derivation", "false"} },
		"another place": func(w *world) {
			require.NoError(w.t, os.Rename(w.path("generated"), w.path("moved")))
			w.Hive = w.path("moved/hive.nix")
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := begin(t)
			change(w)
			require.Equal(t, []string{"a", "b"}, w.hosts("a", "b").Evaluated)
		})
	}
	t.Run("Nix's garbage collector keeps it", func(t *testing.T) {
		w := begin(t)
		lost := w.hosts("c").Hosts["c"].Derivation
		require.NoError(t, os.Remove(w.path(".k3splan/evaluations/c.json")))
		w.inputs("2", "a")
		w.hosts("a", "b") // which protects what is remembered now
		out, err := exec.Command("nix-store", "--gc").CombinedOutput()
		require.NoError(t, err, string(out))
		require.NoFileExists(t, lost, "the collector works")
		require.Empty(t, w.hosts("a", "b").Evaluated)
		require.Equal(t, []string{"c"}, w.hosts("a", "b", "c").Evaluated)
	})
	t.Run("hosts that left the plan", func(t *testing.T) {
		w := begin(t)
		delete(w.Inputs, "b")
		w.inputs("2", "a")
		w.hosts("a")
		require.NoFileExists(t, w.path(".k3splan/evaluations/b.json"))
		roots, err := os.ReadDir(w.path(".k3splan/evaluations/roots"))
		require.NoError(t, err)
		require.Len(t, roots, 1)
	})
	t.Run("a host that fails now", func(t *testing.T) {
		w := begin(t)
		w.write("generated/hive.nix", `{ a = throw "broken"; b = { }; c = { }; }`)
		w.inputs("2", "a")
		require.Equal(t, []string{"a"}, names(w.hosts("a", "b").Failed))
		require.NoFileExists(t, w.path(".k3splan/evaluations/a.json"))
	})
}

// The text of a key stays in Nix. Control: the other fields of the same key arrive, and the place is found if the text
// stands in one of them.
func TestTextsOfKeys(t *testing.T) {
	const poison = "poison-3f1c9a"
	find := func(t *testing.T, hive string) (places []string, r *Result, w *world) {
		w = newWorld(t, hive)
		w.inputs("1", "a", "b")
		r = w.hosts("a", "b")
		for _, folder := range []string{w.dir, os.Getenv("NIX_STORE_DIR")} {
			require.NoError(t, filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() && name != w.Hive {
					if text, _ := os.ReadFile(name); strings.Contains(string(text), poison) {
						places = append(places, filepath.Base(name))
					}
				}
				return nil
			}))
		}
		if strings.Contains(fmt.Sprintf("%+v %s", *r.Hosts["a"], r.Hosts["a"].Deployment["keys"]), poison) {
			places = append(places, "the result")
		}
		return places, r, w
	}
	places, r, w := find(t, `{ a.deployment.keys.token = { text = "`+poison+`"; user = "root"; }; b.deployment.keys.token = { text = null; user = "root"; }; }`)
	require.Empty(t, places)
	require.JSONEq(t, `{"token": {"user": "root"}}`, string(r.Hosts["a"].Deployment["keys"]))
	require.True(t, r.Hosts["a"].HasTexts)
	require.False(t, r.Hosts["b"].HasTexts)
	require.NoFileExists(t, w.path(".k3splan/evaluations/a.json"))
	require.FileExists(t, w.path(".k3splan/evaluations/b.json"))

	places, _, _ = find(t, `{ a.deployment.keys.token = { text = null; user = "`+poison+`"; }; b.deployment = { }; }`)
	require.Equal(t, []string{"a.json", "the result"}, places)
}

// What is remembered is valid for exactly the inputs that fingerprints are made of: the table of package fingerprint
// shows that these move with everything that a host is made from (TestWhatMoves, TestNoChangeIsMissed).
func TestEveryInputCounts(t *testing.T) {
	m := &memory{request: &Request{Inputs: map[string]fingerprint.Inputs{}}, common: "x"}
	key := func(in fingerprint.Inputs) string {
		m.request.Inputs["a"] = in
		return m.key("a")
	}
	seen := map[string]string{key(fingerprint.Inputs{}): "nothing"}
	kind := reflect.TypeFor[fingerprint.Inputs]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		var in fingerprint.Inputs
		switch field := reflect.ValueOf(&in).Elem().Field(i); field.Interface().(type) {
		case map[string]string:
			field.Set(reflect.ValueOf(map[string]string{"x": "1"}))
		case string:
			field.SetString("1")
		case []string: // reasons not to trust the others
			field.Set(reflect.ValueOf([]string{"reads /etc"}))
			require.Empty(t, key(in), name)
			continue
		case bool: // what follows from the others
			require.Equal(t, "ReadsNames", name)
			continue
		default:
			t.Fatalf("a field of another kind: %s", name)
		}
		require.Empty(t, seen[key(in)], name)
		seen[key(in)] = name
	}
	require.Len(t, seen, 6)
	m.request.Inputs["b"] = fingerprint.Inputs{}
	require.NotEqual(t, key(fingerprint.Inputs{}), m.key("b"), "hosts have their own")
}

func TestBuild(t *testing.T) {
	w := newWorld(t, `{
		a = { };
		b.script = "echo 'the disk of b is full'; exit 1";
		c = { };
	}`)
	r := w.hosts("a", "b", "c")
	log := new(strings.Builder)
	var seen []string
	request := BuildRequest{Log: log, Tell: func(p Progress, line string) { seen = append(seen, p.String(), line) }}
	for _, name := range names(r.Hosts) {
		request.Hosts = append(request.Hosts, r.Hosts[name])
	}
	err := Build(t.Context(), request)
	var failed *BuildError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []string{"b"}, failed.Hosts)
	require.ErrorContains(t, err, "1 system not built: b")
	require.Contains(t, log.String(), "the disk of b is full")
	require.Contains(t, seen, "built 1 of 3")
	require.Equal(t, "built 2 of 2", seen[len(seen)-2], "what failed does not count")
	require.Contains(t, seen, "the disk of b is full")
	require.DirExists(t, filepath.Dir(r.Hosts["a"].System))
	require.FileExists(t, r.Hosts["a"].System)
	require.FileExists(t, r.Hosts["c"].System, "it goes on after a failure")

	request.Hosts = []*Host{r.Hosts["a"], r.Hosts["c"]}
	require.NoError(t, Build(t.Context(), request))
}

func TestAvailable(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing is known": {nil, 0},
		"the machine":      {map[string]string{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  4194304 kB\n"}, 4 * gib},
		"a group": {map[string]string{"proc/meminfo": "MemAvailable: 4194304 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "2147483648\n", "sys/fs/cgroup/a/b/memory.current": "1073741824\n"}, gib},
		"a group above": {map[string]string{"proc/meminfo": "MemAvailable: 4194304 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "2147483648\n", "sys/fs/cgroup/a/memory.current": "0\n"}, 2 * gib},
		"files in memory are no use of it": {map[string]string{"proc/meminfo": "MemAvailable: 4194304 kB\n", "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "2147483648\n", "sys/fs/cgroup/memory.current": "2147483648\n", "sys/fs/cgroup/memory.stat": "anon 5\nactive_file 1073741824\n"}, gib},
		"version 1": {map[string]string{"proc/meminfo": "MemAvailable: 4194304 kB\n", "proc/self/cgroup": "5:cpu:/x\n4:memory:/a\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "0\n"}, gib},
		"a limit above the machine": {map[string]string{"proc/meminfo": "MemAvailable: 4194304 kB\n", "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "9223372036854771712\n"}, 4 * gib},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
			}
			require.Equal(t, c.want, availableOf(root))
		})
	}
}
