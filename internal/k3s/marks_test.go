package k3s

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// cluster answers kubectl about one Node, as kubectl would.
type nodeModel struct {
	t     require.TestingT
	node  Node
	calls []string
}

func (m *nodeModel) run(_ context.Context, _ string, words ...string) (string, error) {
	words = words[slices.Index(words, "kubectl")+1:]
	m.calls = append(m.calls, strings.Join(words, " "))
	set := func(to map[string]string) {
		for _, word := range words[4:] {
			if key, remove := strings.CutSuffix(word, "-"); remove {
				delete(to, key)
				continue
			}
			key, value, _ := strings.Cut(word, "=")
			to[key] = value
		}
	}
	switch words[0] {
	case "get":
		answer := map[string]any{
			"metadata": map[string]any{"name": m.node.Name, "labels": m.node.Labels, "annotations": m.node.Annotations},
			"spec":     map[string]any{"taints": m.node.Taints},
		}
		text, err := json.Marshal(answer)
		return string(text), err
	case "label":
		set(m.node.Labels)
	case "annotate":
		set(m.node.Annotations)
	case "taint":
		for _, word := range words[4:] {
			text, remove := strings.CutSuffix(word, "-")
			taint := parseTaint(text)
			i := slices.IndexFunc(m.node.Taints, taint.same)
			if remove && i < 0 {
				return "", fmt.Errorf("taint %q not found", text)
			}
			if i >= 0 {
				m.node.Taints = slices.Delete(m.node.Taints, i, i+1)
			}
			if !remove {
				m.node.Taints = append(m.node.Taints, taint)
			}
		}
	}
	return "", nil
}

func newNode(t require.TestingT) *nodeModel {
	return &nodeModel{t: t, node: Node{Name: "karl-a", Labels: map[string]string{"kubernetes.io/os": "linux", "mine": "1"}, Annotations: map[string]string{"x": "y"},
		Taints: []Taint{{"node.kubernetes.io/unreachable", "", "NoExecute"}}}}
}

func (m *nodeModel) mark(want, was Marks) (bool, error) {
	m.calls = nil
	return Server{Container: "olaf-s", Run: m.run}.Mark(context.Background(), "karl-a", want, was)
}

func TestMark(t *testing.T) {
	m := newNode(t)
	changed, err := m.mark(Marks{Labels: []string{"disk=large", "zone=a"}, Taints: []string{"storage=only:NoSchedule", "gpu:NoExecute"}}, Marks{})
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, []string{"get node karl-a --ignore-not-found -o json", "label node karl-a --overwrite disk=large zone=a",
		"taint node karl-a --overwrite storage=only:NoSchedule gpu:NoExecute",
		"annotate node karl-a --overwrite k3splan/labels=disk=large,zone=a k3splan/taints=storage=only:NoSchedule,gpu:NoExecute",
		"get node karl-a --ignore-not-found -o json"}, m.calls)

	// one changes, one leaves; what others have set stays
	changed, err = m.mark(Marks{Labels: []string{"disk=small"}, Taints: []string{"gpu=a:NoExecute"}}, Marks{})
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, map[string]string{"kubernetes.io/os": "linux", "mine": "1", "disk": "small"}, m.node.Labels)
	require.Equal(t, []Taint{{"node.kubernetes.io/unreachable", "", "NoExecute"}, {"gpu", "a", "NoExecute"}}, m.node.Taints)
	changed, err = m.mark(Marks{Labels: []string{"disk=small"}, Taints: []string{"gpu=a:NoExecute"}}, Marks{})
	require.NoError(t, err)
	require.False(t, changed)
	require.Len(t, m.calls, 1)

	// a Node of a k3splan that set no annotations: the earlier plan says what it had
	m = newNode(t)
	m.node.Labels["old"] = "x"
	_, err = m.mark(Marks{}, Marks{Labels: []string{"old=x", "never=set"}, Taints: []string{"never=set:NoSchedule"}})
	require.NoError(t, err)
	require.Equal(t, newNode(t).node, m.node)
}

// Whatever plans follow each other, and wherever one is interrupted: the Node gets what the last one says, and
// keeps what others have set.
func TestMarksFollowThePlan(t *testing.T) {
	label := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"a", "b", "example.org/c"}).Draw(t, "key") + "=" + rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value")
	})
	taint := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"a", "b=1", "b=2", "c=x"}).Draw(t, "key") + ":" + rapid.SampledFrom([]string{"NoSchedule", "NoExecute"}).Draw(t, "effect")
	})
	marks := rapid.Custom(func(t *rapid.T) Marks {
		return Marks{
			Labels: rapid.SliceOfNDistinct(label, 0, 3, func(s string) string { key, _, _ := strings.Cut(s, "="); return key }).Draw(t, "labels"),
			Taints: rapid.SliceOfNDistinct(taint, 0, 3, func(s string) string { p := parseTaint(s); return p.Key + p.Effect }).Draw(t, "taints"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		m := newNode(t)
		var deployed Marks // by the last receipt
		var want Marks
		for range rapid.IntRange(1, 5).Draw(t, "plans") {
			want = marks.Draw(t, "plan")
			for _, l := range want.Labels { // the agent starts
				key, value, _ := strings.Cut(l, "=")
				m.node.Labels[key] = value
			}
			if rapid.IntRange(0, 3).Draw(t, "interrupted before") == 0 {
				// a label of a plan that was never deployed to its end would stay
				for _, l := range want.Labels {
					key, _, _ := strings.Cut(l, "=")
					delete(m.node.Labels, key)
				}
				continue
			}
			_, err := m.mark(want, deployed)
			require.NoError(t, err)
			deployed = want
		}
		_, err := m.mark(want, deployed)
		require.NoError(t, err)
		labels := map[string]string{"kubernetes.io/os": "linux", "mine": "1"}
		for _, l := range want.Labels {
			key, value, _ := strings.Cut(l, "=")
			labels[key] = value
		}
		require.Equal(t, labels, m.node.Labels)
		var texts []string
		for _, has := range m.node.Taints[1:] {
			texts = append(texts, fmt.Sprint(has))
		}
		var wanted []string
		for _, text := range want.Taints {
			wanted = append(wanted, fmt.Sprint(parseTaint(text)))
		}
		require.ElementsMatch(t, wanted, texts)
		require.NotContains(t, slices.Collect(maps.Keys(m.node.Annotations)), "k3splan/")
	})
}
