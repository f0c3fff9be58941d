package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// boxColmena stands in for Colmena in a rack in a box. It takes the same arguments and does the same
// steps with nix-copy-closure and ssh; instead of NixOS it evaluates system.nix, with the rendered
// hive as its input, or takes what a resolved hive has. "boot" and the like are not there.
func boxColmena() {
	if err := (&colmenaInBox{rack: os.Getenv("BOX_RACK"), data: os.Getenv("BOX_DATA")}).run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "[ERROR]", err)
		os.Exit(1)
	}
}

type colmenaInBox struct {
	rack, data string

	command, hive string
	goal          string
	hosts         []string
	keepResult    bool
	local         bool
	parallel      int

	generated string
	users     map[string]string
	// resolved are the hosts of a resolved hive.
	resolved map[string]resolvedInBox
	cluster  struct {
		Hosts map[string]struct {
			Target struct {
				Host string
				Port int
			}
			K3s struct{ Server, Agent *struct{ Name string } }
		}
	}
}

type resolvedInBox struct {
	DrvPath    string
	Deployment struct{ TargetUser string }
}

// eval answers the two questions of k3splan: by which code hives are evaluated, and which derivations a resolved hive
// has.
func (c *colmenaInBox) eval(hive, expression string) error {
	answer := map[string]any{}
	if strings.Contains(expression, "unsafeGetAttrPos") {
		evaluator, err := os.ReadFile(filepath.Join(c.data, "eval.nix"))
		if err != nil {
			return err
		}
		answer["files"] = map[string]string{"eval.nix": string(evaluator), "options.nix": "{ }", "modules.nix": "{ }"}
		answer["nix"] = []string{"that of the box"}
	} else {
		if err := c.resolve(filepath.Dir(hive)); err != nil {
			return err
		}
		for name, host := range c.resolved {
			answer[name] = host.DrvPath
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// resolve reads a resolved hive, if there is one in the folder.
func (c *colmenaInBox) resolve(folder string) error {
	data, err := os.ReadFile(filepath.Join(folder, "hosts.json"))
	if err != nil {
		return nil
	}
	return json.Unmarshal(data, &c.resolved)
}

func (c *colmenaInBox) run(args []string) error {
	if args[0] == "eval" {
		return c.eval(args[2], args[4])
	}
	c.command, c.goal, c.parallel = args[0], "switch", 10
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-f":
			i++
			c.hive = args[i]
		case "--on":
			i++
			c.hosts = strings.Split(args[i], ",")
		case "--node":
			i++
			c.hosts = []string{args[i]}
		case "--sudo":
			c.local = true
		case "--keep-result":
			c.keepResult = true
		case "--verbose":
		case "boot":
			c.goal = "boot"
		case "--parallel":
			i++
		default:
			return fmt.Errorf("unexpected argument %q", args[i])
		}
	}
	folder := filepath.Dir(c.hive)
	real, err := os.ReadFile(filepath.Join(folder, "path"))
	if err != nil {
		real = []byte(c.hive)
	}
	if sources, err := os.ReadFile(filepath.Join(folder, "sources")); err == nil {
		real = sources
	}
	c.generated = filepath.Dir(string(real))
	if err := c.resolve(folder); err != nil {
		return err
	}
	if users, err := os.ReadFile(filepath.Join(folder, "users.json")); err == nil {
		if err := json.Unmarshal(users, &c.users); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(filepath.Join(c.generated, "cluster.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &c.cluster); err != nil {
		return err
	}
	var group sync.WaitGroup
	failures := make([]error, len(c.hosts))
	for i, host := range c.hosts {
		do := func() {
			if err := c.host(host); err != nil {
				failures[i] = fmt.Errorf("%s: %w", host, err)
			}
		}
		if c.command == "build" {
			do() // Colmena has one Nix evaluate all; several would make the same new store
		} else {
			group.Go(do)
		}
	}
	group.Wait()
	return errors.Join(failures...)
}

func (c *colmenaInBox) host(name string) error {
	if c.command == "upload-keys" {
		return c.upload(name)
	}
	fmt.Println("[INFO ] Evaluating", name)
	if c.command != "build" {
		c.append("applications", name+"\n")
	}
	var out, said bytes.Buffer
	build := exec.Command("nix-build", "--no-out-link", "--argstr", "name", name, "--arg", "generated", c.generated, filepath.Join(c.data, "system.nix"))
	if known, ok := c.resolved[name]; ok {
		build = exec.Command("nix-store", "--realise", known.DrvPath)
	}
	build.Stdout, build.Stderr = &out, &said
	if err := build.Run(); err != nil {
		return fmt.Errorf("building: %w: %s", err, &said)
	}
	system := strings.TrimSpace(out.String())
	snippet, _ := os.ReadFile(filepath.Join(c.generated, "../nixConfigs", name+".nix"))
	onTarget := bytes.Contains(snippet, []byte("buildOnTarget = true"))
	if onTarget {
		// as if it had been built there: only that machine has it
		if err := c.push(name, system); err != nil {
			return err
		}
		if out, err := exec.Command("nix-store", "--delete", system).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		fmt.Printf("[INFO ] %s | Built %q on target node\n", name, system)
	} else {
		fmt.Printf("[INFO ] %s | Built %q\n", name, system)
	}
	if c.keepResult && !onTarget {
		link := filepath.Join(filepath.Dir(c.hive), ".gcroots", "node-"+name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.RemoveAll(link), os.Symlink(system, link)); err != nil {
			return err
		}
	}
	if c.command == "build" {
		return nil
	}
	if !onTarget {
		if err := c.push(name, system); err != nil {
			return err
		}
	}
	if err := c.upload(name); err != nil {
		return err
	}
	if err := c.ssh(name, nil, "nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", system); err != nil {
		return err
	}
	if err := c.ssh(name, nil, filepath.Join(system, "bin/switch-to-configuration"), c.goal); err != nil {
		return fmt.Errorf("activation: %w", err)
	}
	fmt.Printf("[INFO ] %s | Activation successful\n", name)
	return nil
}

func (c *colmenaInBox) push(name, system string) error {
	if c.local {
		return nil
	}
	push := exec.Command("nix-copy-closure", "--to", "--gzip", c.target(name), system)
	push.Env = append(os.Environ(), "NIX_SSHOPTS="+strings.Join(c.options(name), " "))
	if out, err := push.CombinedOutput(); err != nil {
		return fmt.Errorf("copying: %w: %s", err, out)
	}
	fmt.Printf("[INFO ] %s | Pushed system closure\n", name)
	return nil
}

func (c *colmenaInBox) append(file, text string) {
	out, err := os.OpenFile(filepath.Join(c.rack, file), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, _ = out.WriteString(text)
		_ = out.Close()
	}
}

func (c *colmenaInBox) user(name string) string {
	if known, ok := c.resolved[name]; ok {
		return known.Deployment.TargetUser
	}
	if user := c.users[name]; user != "" {
		return user
	}
	return "deploy"
}

func (c *colmenaInBox) target(name string) string {
	return c.user(name) + "@" + c.cluster.Hosts[name].Target.Host
}

// options are those that Colmena gives to ssh.
func (c *colmenaInBox) options(name string) []string {
	options := []string{"-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "-T"}
	if port := c.cluster.Hosts[name].Target.Port; port != 0 {
		options = append(options, "-p", fmt.Sprint(port))
	}
	if config := os.Getenv("SSH_CONFIG_FILE"); config != "" {
		options = append(options, "-F", config)
	}
	return options
}

func (c *colmenaInBox) ssh(name string, stdin []byte, command ...string) error {
	args := append([]string{c.target(name)}, c.options(name)...)
	args = append(args, "--")
	if c.user(name) != "root" {
		args = append(args, "sudo", "-H", "--")
	}
	cmd := exec.Command("ssh", append(args, command...)...)
	if c.local {
		if command[0] == "sh" { // quoted for ssh
			command[2] = strings.Trim(command[2], "'")
		}
		cmd = exec.Command(command[0], command[1:]...)
	}
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	os.Stdout.Write(out)
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

var secretLine = regexp.MustCompile(`secrets\."([a-z-]+)"\.keyFile = \(\.\./\.\. \+ "/([^"]+)"\);`)

// upload does what deployment.nix says.
func (c *colmenaInBox) upload(name string) error {
	text, err := os.ReadFile(filepath.Join(c.generated, "hosts", name+".nix"))
	if err != nil {
		return err
	}
	const root = "/var/lib/k3splan/"
	for _, match := range secretLine.FindAllStringSubmatch(string(text), -1) {
		content, err := os.ReadFile(filepath.Join(c.generated, "..", match[2]))
		if err != nil {
			return err
		}
		var places []string
		k3s := c.cluster.Hosts[name].K3s
		switch match[1] {
		case "passwd":
			places = append(places, root+"secrets/passwd")
			if k3s.Server != nil {
				places = append(places, root+"server/passwd")
			}
		case "server-token":
			places = append(places, root+"server/token")
		case "agent-token":
			places = append(places, root+"agent/token")
		}
		for _, place := range places {
			c.append("uploads", name+" "+match[1]+"\n")
			script := fmt.Sprintf("'set -e; mkdir -p %s; umask 077; cat > %s.tmp; mv %s.tmp %s'", filepath.Dir(place), place, place, place)
			if err := c.ssh(name, content, "sh", "-c", script); err != nil {
				return fmt.Errorf("uploading %s: %w", match[1], err)
			}
		}
	}
	return nil
}
