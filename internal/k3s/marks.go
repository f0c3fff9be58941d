package k3s

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Marks are the labels ("key=value") and taints ("key=value:Effect" or "key:Effect") of a Node.
type Marks struct{ Labels, Taints []string }

// On a Node, these annotations name what k3splan has set, so that it can be taken away when the plan has it no
// more, and nothing else is. Their values are joined by commas.
const (
	labelsAnnotation = "k3splan/labels"
	taintsAnnotation = "k3splan/taints"
)

// changes are the arguments of kubectl's label, taint and annotate that are needed; none is needed where a list is empty.
type changes struct{ label, taint, annotate []string }

func (c changes) none() bool { return len(c.label)+len(c.taint)+len(c.annotate) == 0 }

// changesOf returns what brings a Node to the wanted marks. Those in was, and those that its annotations name,
// are taken away if they are not wanted any more.
func (n *Node) changesOf(want, was Marks) (c changes) {
	wanted := map[string]string{}
	for _, label := range want.Labels {
		key, value, _ := strings.Cut(label, "=")
		wanted[key] = value
	}
	for _, label := range slices.Concat(was.Labels, listed(n.Annotations[labelsAnnotation])) {
		key, _, _ := strings.Cut(label, "=")
		_, isWanted := wanted[key]
		if _, has := n.Labels[key]; has && !isWanted && !slices.Contains(c.label, key+"-") {
			c.label = append(c.label, key+"-")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if value, has := n.Labels[key]; !has || value != wanted[key] {
			c.label = append(c.label, key+"="+wanted[key])
		}
	}
	for _, text := range slices.Concat(was.Taints, listed(n.Annotations[taintsAnnotation])) {
		old := parseTaint(text)
		remove := old.Key + ":" + old.Effect + "-"
		isWanted := slices.ContainsFunc(want.Taints, func(text string) bool { return parseTaint(text).same(old) })
		if n.taint(old) != nil && !isWanted && !slices.Contains(c.taint, remove) {
			c.taint = append(c.taint, remove)
		}
	}
	for _, text := range want.Taints {
		taint := parseTaint(text)
		if has := n.taint(taint); has == nil || has.Value != taint.Value {
			c.taint = append(c.taint, text)
		}
	}
	for annotation, marks := range map[string][]string{labelsAnnotation: want.Labels, taintsAnnotation: want.Taints} {
		switch text, has := n.Annotations[annotation]; {
		case len(marks) == 0 && has:
			c.annotate = append(c.annotate, annotation+"-")
		case len(marks) > 0 && text != strings.Join(marks, ","):
			c.annotate = append(c.annotate, annotation+"="+strings.Join(marks, ","))
		}
	}
	slices.Sort(c.annotate)
	return c
}

func listed(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func parseTaint(text string) Taint {
	rest, effect := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		rest, effect = text[:i], text[i+1:]
	}
	key, value, _ := strings.Cut(rest, "=")
	return Taint{Key: key, Value: value, Effect: effect}
}

// same reports whether a Node can have only one of the two.
func (t Taint) same(other Taint) bool { return t.Key == other.Key && t.Effect == other.Effect }

// taint returns the Node's taint of the same key and effect, or nil.
func (n *Node) taint(t Taint) *Taint {
	for i, has := range n.Taints {
		if has.same(t) {
			return &n.Taints[i]
		}
	}
	return nil
}

// None reports whether there are neither labels nor taints.
func (m Marks) None() bool { return len(m.Labels)+len(m.Taints) == 0 }

// Mark brings the labels and taints of a Node to what is wanted. An agent sets its labels when it starts and never
// takes one away, and it gives taints to a new Node only (k3s, pkg/agent/run.go; the kubelet's --register-with-taints).
// was are marks that the Node may have from an earlier plan; marks of others stay. It reports whether anything
// had to be changed.
func (s Server) Mark(ctx context.Context, name string, want, was Marks) (changed bool, err error) {
	node, err := s.Node(ctx, name)
	if err != nil {
		return false, err
	}
	if node == nil {
		return false, fmt.Errorf("there is no Node %s", name)
	}
	c := node.changesOf(want, was)
	if c.none() {
		return false, nil
	}
	// the annotation comes last: until then, what was set is known from the earlier plan
	for _, change := range []struct {
		verb  string
		words []string
	}{{"label", c.label}, {"taint", c.taint}, {"annotate", c.annotate}} {
		if len(change.words) == 0 {
			continue
		}
		if _, err := s.kubectl(ctx, 30, append([]string{change.verb, "node", name, "--overwrite"}, change.words...)...); err != nil {
			return false, fmt.Errorf("%s the Node %s, on %s: %w", change.verb, name, s.Container, err)
		}
	}
	if node, err = s.Node(ctx, name); err != nil {
		return true, err
	}
	if node == nil || !node.changesOf(want, was).none() {
		return true, fmt.Errorf("the Node %s does not have the labels and taints that it was given", name)
	}
	return true, nil
}
