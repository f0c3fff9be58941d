package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// local is what a server says about itself and the cluster.
type local struct {
	Self            string
	Removed, Quorum bool
	Data            data
}

// ask asks the server in this container.
func ask(path string, question, answer any) error {
	if question == nil {
		question = struct{}{}
	}
	return post("127.0.0.1:6443", path, question, answer)
}

func etcdctl(words []string) error {
	var l local
	if err := ask("/data", nil, &l); err != nil {
		return err
	}
	if !l.Quorum {
		return errors.New("context deadline exceeded")
	}
	switch text := strings.Join(words, " "); {
	case text == "member list":
		for _, name := range slices.Sorted(maps.Keys(l.Data.Members)) {
			if m := l.Data.Members[name]; !m.Removed {
				fmt.Printf("%s, started, %s, https://%s:2380, https://%[3]s:2379, false\n", idOf(name), name, m.IP)
			}
		}
		return nil
	case strings.HasPrefix(text, "member remove "):
		for name, m := range l.Data.Members {
			if idOf(name) == words[2] {
				m.Removed, m.Version = true, newer()
				return ask("/change", data{Members: map[string]member{name: m}}, nil)
			}
		}
		return errors.New("etcdserver: member not found")
	case text == "get --prefix --keys-only /bootstrap/":
		fmt.Printf("/bootstrap/%s\n\n", l.Data.Token)
		return nil
	}
	return fmt.Errorf("the lab's etcdctl does not know: %s", strings.Join(words, " "))
}

// idOf is a member's ID, in hexadecimal.
func idOf(name string) string {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name))
	return fmt.Sprintf("%x", hash.Sum64())
}

func kubectl(words []string) error {
	var l local
	if err := ask("/data", nil, &l); err != nil {
		return errors.New("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?")
	}
	if !l.Quorum || l.Removed {
		return errors.New("Error from server: [-]etcd failed: reason withheld")
	}
	var names []string
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "-n" || words[i] == "-o":
			i++
		case !strings.HasPrefix(words[i], "-"):
			names = append(names, words[i])
		}
	}
	switch text := strings.Join(words, " "); {
	case text == "get --raw=/readyz":
		fmt.Println("ok")
		return nil
	case len(names) >= 2 && names[0] == "get" && (names[1] == "nodes" || names[1] == "node" || strings.HasPrefix(names[1], "leases")):
		return get(l, names[1], names[2:])
	case len(names) == 3 && names[0] == "delete" && names[1] == "node":
		return change(l, names[2], func(n *node) { n.Gone = true })
	case len(names) >= 4 && names[0] == "label" && names[1] == "node":
		return change(l, names[2], func(n *node) {
			for _, label := range names[3:] {
				if key, value, set := strings.Cut(label, "="); set {
					n.Labels[key] = value
				} else {
					delete(n.Labels, strings.TrimSuffix(label, "-"))
				}
			}
		})
	case len(names) >= 4 && names[0] == "taint" && names[1] == "node":
		return change(l, names[2], func(n *node) {
			for _, taint := range names[3:] {
				if mark, removes := strings.CutSuffix(taint, "-"); removes {
					n.Taints = slices.DeleteFunc(n.Taints, func(t string) bool {
						return t == mark || strings.HasSuffix(mark, ":"+t) || strings.HasPrefix(t, mark+"=") || strings.HasPrefix(t, mark+":")
					})
				} else if !slices.Contains(n.Taints, taint) {
					n.Taints = append(n.Taints, taint)
				}
			}
		})
	case len(names) == 2 && (names[0] == "cordon" || names[0] == "uncordon" || names[0] == "drain"):
		return nil
	}
	return fmt.Errorf("the lab's kubectl does not know: %s", strings.Join(words, " "))
}

func change(l local, name string, do func(*node)) error {
	n, there := l.Data.Nodes[name]
	if !there || n.Gone {
		return fmt.Errorf("Error from server (NotFound): nodes %q not found", name)
	}
	do(&n)
	n.Version = newer()
	return ask("/change", data{Nodes: map[string]node{name: n}}, nil)
}

// nodeIsLost is how long after its last word a Node counts as not ready.
const nodeIsLost = 10 * time.Second

func get(l local, kind string, only []string) error {
	var items []any
	for _, name := range slices.Sorted(maps.Keys(l.Data.Nodes)) {
		n := l.Data.Nodes[name]
		if n.Gone || len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		ready := "True"
		if time.Since(n.Renewed) > nodeIsLost {
			ready = "Unknown"
		}
		taints := []map[string]string{}
		for _, taint := range n.Taints {
			mark, effect, _ := strings.Cut(taint, ":")
			key, value, _ := strings.Cut(mark, "=")
			taints = append(taints, map[string]string{"key": key, "value": value, "effect": effect})
		}
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": name, "labels": n.Labels},
			"spec":     map[string]any{"renewTime": n.Renewed, "taints": taints},
			"status": map[string]any{
				"nodeInfo":   map[string]string{"kubeletVersion": n.K3S},
				"conditions": []map[string]string{{"type": "Ready", "status": ready}},
			},
		})
	}
	var answer any = map[string]any{"kind": "List", "items": items}
	if len(only) == 1 {
		if len(items) == 0 {
			return fmt.Errorf("Error from server (NotFound): %s %q not found", kind, only[0])
		}
		answer = items[0]
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}
