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
	certificate, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	if err := trust(string(certificate)); err != nil {
		return err
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
	mayBeMissing := false
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "-n" || words[i] == "-o":
			i++
		case words[i] == "--ignore-not-found":
			mayBeMissing = true
		case !strings.HasPrefix(words[i], "-"):
			names = append(names, words[i])
		}
	}
	if slices.Equal(words, []string{"get", "--raw=/readyz"}) {
		fmt.Println("ok")
		return nil
	}
	verb, kind, name, rest := "", "", "", []string(nil)
	switch len(names) {
	case 0, 1:
	case 2:
		verb, kind = names[0], names[1]
	default:
		verb, kind, name, rest = names[0], names[1], names[2], names[3:]
	}
	kind, _, _ = strings.Cut(kind, ".")
	if kind == "secret" {
		// the Node's password is known as long as the Node
		kind, name = "password", strings.TrimSuffix(name, ".node-password.k3s")
	}
	n, there := l.Data.Nodes[name]
	if name != "" && (!there || n.Gone) {
		if mayBeMissing {
			return nil
		}
		return fmt.Errorf("Error from server (NotFound): %s %q not found", kind, name)
	}
	set := func(values map[string]string) error {
		for _, word := range rest {
			if key, value, set := strings.Cut(word, "="); set {
				values[key] = value
			} else {
				delete(values, strings.TrimSuffix(word, "-"))
			}
		}
		return change(n)
	}
	switch verb + " " + kind {
	case "get node", "get nodes", "get leases":
		return get(l, name)
	case "get password":
		fmt.Println("secret/" + name + ".node-password.k3s")
		return nil
	case "delete node":
		n.Gone = true
		return change(n)
	case "label node":
		return set(n.Labels)
	case "annotate node":
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		return set(n.Annotations)
	case "taint node":
		for _, word := range rest {
			mark, removes := strings.CutSuffix(word, "-")
			n.Taints = slices.DeleteFunc(n.Taints, func(has string) bool { return sameTaint(has, mark) })
			if !removes {
				n.Taints = append(n.Taints, word)
			}
		}
		return change(n)
	}
	if names[0] == "cordon" || names[0] == "uncordon" || names[0] == "drain" { // there are no pods
		return nil
	}
	return fmt.Errorf("the lab's kubectl does not know: %s", strings.Join(words, " "))
}

// sameTaint reports whether a Node can have only one of two taints: same key, same effect.
func sameTaint(a, b string) bool {
	keyA, effectA, _ := strings.Cut(a, ":")
	keyB, effectB, _ := strings.Cut(b, ":")
	keyA, _, _ = strings.Cut(keyA, "=")
	keyB, _, _ = strings.Cut(keyB, "=")
	return keyA == keyB && effectA == effectB
}

func change(n node) error {
	n.Version = newer()
	return ask("/change", data{Nodes: map[string]node{n.Name: n}}, nil)
}

// nodeIsLost is how long after its last word a Node counts as not ready.
const nodeIsLost = 10 * time.Second

// get prints Nodes that are their own leases: a list, or one by its name.
func get(l local, only string) error {
	items := []any{}
	for _, name := range slices.Sorted(maps.Keys(l.Data.Nodes)) {
		n := l.Data.Nodes[name]
		if n.Gone || only != "" && name != only {
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
			"metadata": map[string]any{"name": name, "labels": n.Labels, "annotations": n.Annotations},
			"spec":     map[string]any{"renewTime": n.Renewed, "taints": taints},
			"status": map[string]any{
				"nodeInfo":   map[string]string{"kubeletVersion": n.K3S},
				"conditions": []map[string]string{{"type": "Ready", "status": ready}},
			},
		})
	}
	if only != "" {
		return json.NewEncoder(os.Stdout).Encode(items[0])
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"kind": "List", "items": items})
}
