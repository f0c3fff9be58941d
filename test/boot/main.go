// Boot runs hosts of a plan on this machine, as the boot tests do: see README.md.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"k3splan/test/boot/lab"
)

const usage = `go run ./test/boot COMMAND, as root. The lab's folder is $LAB_DIR, or /var/tmp/k3splan-lab.

  up GATEWAY/LENGTH            the network, and the nixpkgs that systems are built from
  pin PROJECT                  lets the project's plans/lock.json name that nixpkgs
  install PROJECT HOST…        builds the hosts' systems; makes machines with these and their secrets
  start HOST NIC [MAC]         switches a machine on
  image HOST [NAME]            imports the image of its agent, which cannot be pulled here
  do HOST COMMAND…             runs a command of bash on it
  stop HOST, kill HOST         shuts it down; takes its power away
  deployer COMMAND…            runs a command beside the machines: k3splan -p PROJECT deploy
  list                         the machines
  down                         ends all of it; what was built stays
`

func main() {
	err := command(os.Args[1:])
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit) && len(os.Args) > 1 && os.Args[1] == "deployer":
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func command(words []string) error {
	if len(words) > 1 && words[0] == "colmena" {
		return runColmena(words[1:])
	}
	need := map[string]int{"up": 2, "pin": 2, "install": 3, "start": 3, "image": 2, "do": 3, "stop": 2, "kill": 2, "deployer": 2, "list": 1, "down": 1}
	if len(words) == 0 || need[words[0]] == 0 || len(words) < need[words[0]] {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	l, err := lab.Open(cmp.Or(os.Getenv("LAB_DIR"), "/var/tmp/k3splan-lab"))
	if err != nil {
		return err
	}
	switch words[0] {
	case "up":
		for _, line := range l.Substitutes() {
			fmt.Println(line)
		}
		return l.Up(words[1])
	case "down":
		return l.Down()
	case "pin":
		return l.Pin(words[1])
	case "install":
		systems, err := l.Build(words[1], words[2:]...)
		if err != nil {
			return err
		}
		for _, host := range words[2:] {
			fmt.Println(host, systems[host])
			if err := l.Machine(host).Install(words[1], systems[host]); err != nil {
				return err
			}
		}
		return nil
	case "list":
		for _, machine := range l.Machines() {
			state := "off"
			if machine.Running() {
				state = "on"
			}
			fmt.Println(machine.Host, state, machine.Root())
		}
		return nil
	case "deployer":
		return through(l.Deployer(words[1:]...))
	}
	machine := l.Machine(words[1])
	switch words[0] {
	case "start":
		return machine.Start(words[2], strings.Join(words[3:], ""))
	case "image":
		return machine.Image(strings.Join(words[2:], ""))
	case "stop":
		return machine.Stop()
	case "kill":
		return machine.Kill()
	default:
		command, err := machine.Command(strings.Join(words[2:], " "))
		if err != nil {
			return err
		}
		return through(command)
	}
}

func through(command *exec.Cmd) error {
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}
