// Standin answers in the name of k3s and etcdctl where there is no real k3s. It has no API server and no
// kubelet; what it shares with k3s is what its hosts and k3splan see of it: servers that join by a token,
// remember each other, and are ready as long as a majority of them is; agents whose Nodes they keep;
// connections between all of them that stay open; and k3s's files in k3s's places.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	words := os.Args[1:]
	if filepath.Base(os.Args[0]) == "etcdctl" {
		words = append([]string{"etcdctl"}, words...)
	}
	if err := command(words); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(words []string) error {
	verb := ""
	if len(words) > 0 {
		verb = words[0]
	}
	switch verb {
	case "server":
		return serve(parse(words[1:]))
	case "agent":
		return register(parse(words[1:]))
	case "--version":
		fmt.Printf("k3s version %s (lab)\n", version())
		return nil
	case "token":
		return ask("/token/rotate", nil, nil)
	case "kubectl":
		return kubectl(words[1:])
	case "etcdctl":
		return etcdctl(words[1:])
	}
	return fmt.Errorf("the lab's k3s does not know: %s", strings.Join(words, " "))
}

func version() string { return os.Getenv("LAB_K3S_VERSION") }

// options are those that matter here, of the command line and of a configuration file in JSON.
type options struct {
	init              bool
	server, tokenFile string
	name              string
	labels, taints    []string
	agentTokenFile    string
}

func parse(words []string) options {
	o := options{server: os.Getenv("K3S_URL")}
	set := func(key, value string) {
		switch key {
		case "cluster-init":
			o.init = value != "false"
		case "server":
			o.server = value
		case "token-file":
			o.tokenFile = value
		case "agent-token-file":
			o.agentTokenFile = value
		case "node-name":
			o.name = value
		case "node-label":
			o.labels = append(o.labels, value)
		case "node-taint":
			o.taints = append(o.taints, value)
		}
	}
	for i := 0; i < len(words); i++ {
		key, value, joined := strings.Cut(strings.TrimPrefix(words[i], "--"), "=")
		if !joined && i+1 < len(words) && !strings.HasPrefix(words[i+1], "--") {
			i++
			value = words[i]
		}
		set(key, value)
	}
	for _, file := range []string{"/etc/rancher/k3s/config.yaml"} {
		var settings map[string]any
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &settings) == nil {
			for key, value := range settings {
				list, isList := value.([]any)
				if !isList {
					list = []any{value}
				}
				for _, item := range list {
					set(key, fmt.Sprint(item))
				}
			}
		}
	}
	return o
}

// token is the content of a token's file. A full one (K10HASH::server:SECRET) has the hash of the cluster's CA.
type token struct{ hash, secret string }

func readToken(file string) (token, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return token{}, err
	}
	t := token{secret: strings.TrimSpace(string(data))}
	if full, is := strings.CutPrefix(t.secret, "K10"); is {
		t.hash, t.secret, _ = strings.Cut(full, "::")
		_, t.secret, _ = strings.Cut(t.secret, ":")
	}
	if t.secret == "" {
		return token{}, errors.New("the token is empty")
	}
	return t, nil
}
