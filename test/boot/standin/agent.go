package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// heartbeat is what an agent says to a server.
type heartbeat struct {
	Name, Password, K3S, Key string
	Labels                   map[string]string
	Taints                   []string
	// First is set once after each start: a kubelet brings its labels then.
	First bool
}

// agent takes an agent's heartbeat, and returns all servers.
func (c *cluster) agent(a heartbeat) ([]string, error) {
	known, there := c.Data.Nodes[a.Name]
	switch {
	case a.Key != c.Data.Agent && a.Key != c.Data.Token:
		return nil, errors.New("not authorized")
	case !c.hasQuorum():
		return nil, errors.New("etcdserver: no leader")
	case there && !known.Gone && known.Password != a.Password:
		return nil, errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry")
	case !there || known.Gone:
		known = node{Name: a.Name, Password: a.Password, Labels: map[string]string{}, Taints: a.Taints}
		a.First = true
	}
	if a.First {
		labels := maps.Clone(known.Labels)
		maps.Copy(labels, a.Labels)
		known.Labels = labels
	}
	known.K3S, known.Renewed, known.Version = a.K3S, time.Now(), newer()
	c.Data.Nodes[a.Name] = known
	var servers []string
	for _, m := range c.voters() {
		servers = append(servers, net.JoinHostPort(m.IP, "6443"))
	}
	return servers, nil
}

const (
	passwordFile = "/etc/rancher/node/password"
	serversFile  = "/var/lib/rancher/k3s/agent/etc/lab-servers"
)

func register(o options) error {
	token, err := readToken(o.tokenFile)
	if err != nil {
		return err
	}
	password, err := os.ReadFile(passwordFile)
	if err != nil {
		password = []byte(random(16))
		if err := errors.Join(os.MkdirAll(filepath.Dir(passwordFile), 0o755), os.WriteFile(passwordFile, password, 0o600)); err != nil {
			return err
		}
	}
	where, err := url.Parse(o.server)
	if err != nil {
		return err
	}
	servers := []string{where.Host}
	if kept, err := os.ReadFile(serversFile); err == nil {
		servers = append(strings.Fields(string(kept)), servers...)
	}
	beat := heartbeat{Name: o.name, Password: string(password), K3S: version(), Key: keyOf(token.secret), Labels: map[string]string{}, Taints: o.taints, First: true}
	for _, label := range o.labels {
		key, value, _ := strings.Cut(label, "=")
		beat.Labels[key] = value
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	trusted := false
	for {
		var all []string
		var err error
		if !trusted {
			err = trustServer(servers[0], token)
			trusted = err == nil
		}
		if err == nil {
			err = post(servers[0], "/agent", beat, &all)
		}
		if err != nil {
			fmt.Println(servers[0]+":", err)
			servers = append(servers[1:], servers[0])
		} else {
			beat.First = false
			if !slices.Equal(all, servers) {
				servers = all
				_ = os.MkdirAll(filepath.Dir(serversFile), 0o755)
				_ = os.WriteFile(serversFile, []byte(strings.Join(all, "\n")+"\n"), 0o600)
			}
		}
		select {
		case <-stop:
			return nil
		case <-time.After(time.Second):
		}
	}
}
