package diff

import (
	"fmt"
	"slices"
	"strconv"

	"k3splan/internal/plan"
)

// machine adds what has changed in how a host is deployed, rebooted and checked. All of it is a file on the
// host, so nothing restarts.
func (c *comparison) machine(before, now *plan.Host) {
	hosts := []string{now.Name}
	was, is := before.Machine, now.Machine
	for _, field := range []struct{ name, from, to string }{
		{"role", was.Role, is.Role},
		{"reboot_order", strconv.Itoa(was.RebootOrder), strconv.Itoa(is.RebootOrder)},
		{"reboot_delay", seconds(was.Orchestration.RebootDelay), seconds(is.Orchestration.RebootDelay)},
		{"strategy", string(was.Orchestration.Strategy), string(is.Orchestration.Strategy)},
		{"criticality", string(was.Orchestration.Criticality), string(is.Orchestration.Criticality)},
	} {
		c.field(Change{Object: Host, Action: Changed, Name: now.Name, Field: field.name, From: field.from, To: field.to, Where: now.Where(field.name)}, hosts, nothing)
	}
	change := Change{Object: Host, Name: now.Name, Field: "groups", Where: now.Where("groups")}
	c.list(change, "group", was.Groups, is.Groups, hosts, nothing)
	dependencies := make([]string, len(was.Dependencies))
	for i, name := range was.Dependencies {
		dependencies[i] = c.hostNow(name)
	}
	change.Field, change.Where = "depends_on", now.Where("depends_on")
	c.list(change, "dependency on", dependencies, is.Dependencies, hosts, nothing)
	c.checks(now, was.HealthChecks, is.HealthChecks)
}

func seconds(n int) string { return strconv.Itoa(n) + " s" }

// checks adds the health checks that were added, removed or changed.
func (c *comparison) checks(host *plan.Host, before, now []plan.HealthCheck) {
	find := func(list []plan.HealthCheck, name string) string {
		for _, check := range list {
			if check.Name == name {
				return checkWords(check)
			}
		}
		return ""
	}
	var names []string
	for _, check := range slices.Concat(before, now) {
		names = append(names, check.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		change := Change{Object: Host, Action: Changed, Name: host.Name, Field: "checks", From: find(before, name), To: find(now, name), Where: host.WhereCheck(name)}
		var what string
		switch {
		case change.From == change.To:
			continue
		case change.From == "":
			what = "added: " + change.To
		case change.To == "":
			what = "removed: " + change.From
		default:
			what = change.From + " → " + change.To
		}
		c.add(change, fmt.Sprintf("host %s: check %s %s", host.Name, name, inOneLine(what)), []string{host.Name}, nothing)
	}
}

// checkWords describes a check without its name.
func checkWords(c plan.HealthCheck) string {
	return fmt.Sprintf("%s %s from the %s within %d s", c.Type, c.Target(), c.From, c.Timeout)
}
