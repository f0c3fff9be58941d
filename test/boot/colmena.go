package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// deployment is what the hive says about reaching a host.
type deployment struct {
	TargetHost, TargetUser string
	TargetPort             *int
	// System is the derivation of the host's system.
	System string
	Keys   []struct{ KeyFile, Path, Permissions, User, Group string }
}

// colmena replaces Colmena where there is none: build, apply (switch, boot, test) and upload-keys for hosts that
// are named, with the same commands over ssh.
type colmena struct {
	command, hive, goal string
	hosts               []string
	keep                bool
}

func runColmena(words []string) error {
	c := colmena{command: words[0], goal: "switch"}
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "-f", "--on", "--parallel":
			value := words[i+1]
			if words[i] == "-f" {
				c.hive = value
			} else if words[i] == "--on" {
				c.hosts = strings.Split(value, ",")
			}
			i++
		case "--keep-result":
			c.keep = true
		case "switch", "boot", "test":
			c.goal = words[i]
		case "--verbose":
		default:
			return fmt.Errorf("the lab's Colmena does not know %s", words[i])
		}
	}
	var group sync.WaitGroup
	failures := make([]error, len(c.hosts))
	for i, host := range c.hosts {
		group.Go(func() { failures[i] = c.host(host) })
	}
	group.Wait()
	return errors.Join(failures...)
}

func (c colmena) host(host string) error {
	say := func(text string) { fmt.Fprintf(os.Stderr, "[INFO ] %s | %s\n", host, text) }
	attribute := "all"
	if c.command == "upload-keys" {
		attribute = "deployment"
	}
	evaluation := exec.Command("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", filepath.Join(os.Getenv("LAB_TREE"), "hive.nix"),
		"--argstr", "hive", c.hive, "--argstr", "host", host, "-A", attribute)
	evaluation.Stderr = os.Stderr
	out, err := evaluation.Output()
	if err != nil {
		return fmt.Errorf("%s: evaluating: %w", host, err)
	}
	var d deployment
	if err := json.Unmarshal(out, &d); err != nil {
		return err
	}
	system := ""
	if c.command != "upload-keys" {
		build := exec.Command("nix-store", "--realise", d.System)
		build.Stderr = os.Stderr
		if out, err = build.Output(); err != nil {
			return fmt.Errorf("%s: building: %w", host, err)
		}
		system = strings.TrimSpace(string(out))
		say("Built \"" + system + "\"")
		if c.keep {
			roots := filepath.Join(filepath.Dir(c.hive), ".gcroots")
			link := filepath.Join(roots, "node-"+host)
			_ = os.Remove(link)
			if err := errors.Join(os.MkdirAll(roots, 0o755), os.Symlink(system, link)); err != nil {
				return err
			}
		}
		if c.command == "build" {
			return nil
		}
		copying := exec.Command("nix-copy-closure", "--to", d.TargetUser+"@"+d.TargetHost, system)
		copying.Env = append(os.Environ(), "NIX_SSHOPTS="+strings.Join(d.options(), " "))
		if out, err := copying.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: copying: %w: %s", host, err, out)
		}
		say("Pushed system closure")
	}
	for _, key := range d.Keys {
		content, err := os.ReadFile(key.KeyFile)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		script := fmt.Sprintf("'set -euo pipefail; mkdir -p %[1]s; umask 077; cat > %[2]s.tmp; chown %[3]s:%[4]s %[2]s.tmp; chmod %[5]s %[2]s.tmp; mv %[2]s.tmp %[2]s'",
			filepath.Dir(key.Path), key.Path, key.User, key.Group, key.Permissions)
		if err := d.ssh(string(content), "sh", "-c", script); err != nil {
			return fmt.Errorf("%s: uploading keys: %w", host, err)
		}
	}
	say("Uploaded keys")
	if c.command == "upload-keys" {
		return nil
	}
	if c.goal != "test" {
		if err := d.ssh("", "nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", system); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	if err := d.ssh("", filepath.Join(system, "bin", "switch-to-configuration"), c.goal); err != nil {
		return fmt.Errorf("%s: activating: %w", host, err)
	}
	say("Activation successful")
	return nil
}

// options are those that Colmena passes to ssh.
func (d deployment) options() []string {
	options := []string{"-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "-T"}
	if config := os.Getenv("SSH_CONFIG_FILE"); config != "" {
		options = append(options, "-F", config)
	}
	if d.TargetPort != nil {
		options = append(options, "-p", strconv.Itoa(*d.TargetPort))
	}
	return options
}

func (d deployment) ssh(stdin string, words ...string) error {
	args := append([]string{d.TargetUser + "@" + d.TargetHost}, d.options()...)
	args = append(args, "--")
	if d.TargetUser != "root" {
		args = append(args, "sudo", "-H", "--")
	}
	command := exec.Command("ssh", append(args, words...)...)
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), os.Stderr, os.Stderr
	return command.Run()
}
