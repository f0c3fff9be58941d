package project

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
	"k8s.io/apimachinery/pkg/util/validation"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"

	"k3splan/internal/diag"
	"k3splan/internal/yamlfile"
)

type manifestFinding struct {
	severity            diag.Severity
	line                int
	code, message, hint string
}

// checkObject checks a document of the manifest of this name: it must be an object that a cluster has a
// kind for, and that the API does not refuse.
func checkObject(name string, node *yaml.Node) (found []manifestFinding) {
	fail := func(code, message, hint string) []manifestFinding {
		return append(found, manifestFinding{diag.Error, node.Line, code, message, hint})
	}
	apiVersion, kind := textAt(node, "apiVersion"), textAt(node, "kind")
	if apiVersion == "" || kind == "" {
		if what := whatInstead(name, node); what != "" {
			return fail("manifest-not-object", what+", not an object of a cluster", notHere(what))
		}
		return fail("manifest-invalid", "not an object of Kubernetes: apiVersion and kind are needed", "")
	}
	if program := programOf(apiVersion, kind); program != "" {
		what := "configuration of " + program
		return fail("manifest-not-object", fmt.Sprintf("%s, not an object of a cluster: k3s would try to apply it for ever", what), notHere(what))
	}
	if isEncrypted(node) {
		return fail("manifest-encrypted", "sops has encrypted it, and k3s does not decrypt it",
			"decrypt it and create it with kubectl, or use a SealedSecret or an ExternalSecret")
	}
	found = append(found, checkMetadata(node)...)
	switch {
	case kind == "List" || strings.HasSuffix(kind, "List") && valueAt(node, "items") != nil:
		if items := valueAt(node, "items"); items != nil && items.Kind == yaml.SequenceNode {
			for _, item := range items.Content {
				if item = yamlfile.Value(item); valueAt(item, "kind") == nil && kind != "List" {
					found = append(found, checkContent(item, strings.TrimSuffix(kind, "List"), apiVersion)...)
					continue
				}
				found = append(found, checkObject(name, item)...)
			}
		}
		if kind == "SecretList" {
			found = append(found, manifestFinding{diag.Warning, node.Line, "manifest-secret", "its Secrets would be readable for everyone on the servers, in the Nix store",
				"create them with kubectl, or use sealed or external secrets"})
		}
	default:
		found = append(found, checkContent(node, kind, apiVersion)...)
		if wrong := checkName(node, apiVersion, kind); wrong != nil && (len(found) == 0 || wrong.severity == diag.Error) {
			found = append(found, *wrong)
		}
	}
	return found
}

// checkContent checks the values of an object of a kind that holds texts.
func checkContent(node *yaml.Node, kind, apiVersion string) []manifestFinding {
	switch {
	case kind == "Secret" && apiVersion == "v1":
		return checkSecret(node)
	case kind == "ConfigMap" && apiVersion == "v1":
		return checkTexts(node, "data", "manifest-invalid")
	case slices.Contains(workloads, kind) && (apiVersion == "v1" || apiVersion == "apps/v1" || apiVersion == "batch/v1"):
		return checkContainers(valueAt(node, "spec"))
	}
	return nil
}

// workloads are the kinds that have containers.
var workloads = []string{"Pod", "ReplicationController", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"}

// checkContainers checks that environments and arguments of containers at any depth are texts.
func checkContainers(node *yaml.Node) (found []manifestFinding) {
	for key, value := range entriesOf(node) {
		if key != "containers" && key != "initContainers" {
			if value.Kind == yaml.MappingNode {
				found = append(found, checkContainers(value)...)
			}
			continue
		}
		for _, container := range value.Content {
			container = yamlfile.Value(container)
			for _, list := range []string{"command", "args", "env"} {
				items := valueAt(container, list)
				if items == nil || items.Kind != yaml.SequenceNode {
					continue
				}
				for _, item := range items.Content {
					what := "a value"
					if item = yamlfile.Value(item); list == "env" {
						what = "the value of " + diag.Printable(textAt(item, "name"))
						item = valueAt(item, "value")
					}
					if item != nil && !isText(item) {
						found = append(found, manifestFinding{diag.Error, item.Line, "manifest-invalid",
							fmt.Sprintf("%s below %s is not a text, and the API refuses it", what, list), "put it into quotes"})
					}
				}
			}
		}
	}
	return found
}

// checkSecret checks the values of a Secret. What it holds is never in a message.
func checkSecret(node *yaml.Node) (found []manifestFinding) {
	for key, value := range entriesOf(valueAt(node, "data")) {
		if _, err := base64.StdEncoding.DecodeString(value.Value); value.Kind != yaml.ScalarNode || err != nil || !isText(value) {
			found = append(found, manifestFinding{diag.Error, value.Line, "manifest-secret-invalid",
				fmt.Sprintf("the value of %s below data is not base64, and the API refuses it", diag.Printable(key)), "write plain text below stringData instead"})
		}
	}
	found = append(found, checkTexts(node, "stringData", "manifest-secret-invalid")...)
	if isMapping(valueAt(node, "data")) || isMapping(valueAt(node, "stringData")) {
		found = append(found, manifestFinding{diag.Warning, node.Line, "manifest-secret", "the Secret would be readable for everyone on the servers, in the Nix store",
			"create it with kubectl, or use sealed or external secrets"})
	}
	return found
}

// checkMetadata checks that names, labels and annotations are texts.
func checkMetadata(node *yaml.Node) (found []manifestFinding) {
	metadata := valueAt(node, "metadata")
	for _, key := range []string{"name", "namespace"} {
		if value := valueAt(metadata, key); value != nil && !isText(value) {
			found = append(found, notText(value, key, "metadata", "manifest-invalid"))
		}
	}
	for _, key := range []string{"labels", "annotations"} {
		found = append(found, checkTexts(metadata, key, "manifest-invalid")...)
	}
	return found
}

// checkName checks that an object has a name that the API takes.
func checkName(node *yaml.Node, apiVersion, kind string) *manifestFinding {
	metadata := valueAt(node, "metadata")
	name, namespace := textAt(metadata, "name"), textAt(metadata, "namespace")
	for _, word := range []string{apiVersion, kind, name, namespace} {
		if strings.Contains(word, "{{") {
			return &manifestFinding{diag.Error, node.Line, "manifest-invalid", fmt.Sprintf("a template of Helm or Go: %q", diag.Printable(word)), templateHint}
		}
	}
	group, _, _ := strings.Cut(apiVersion, "/")
	switch {
	case isMissing(apiVersion, kind):
		return &manifestFinding{diag.Error, valueAt(node, "kind").Line, "manifest-invalid",
			fmt.Sprintf("Kubernetes has no kind %q in %s, so that k3s would try to apply it for ever", diag.Printable(kind), diag.Printable(apiVersion)), kindHint(kind)}
	case name == "":
		return &manifestFinding{diag.Warning, node.Line, "manifest-unnamed", "the object has no metadata.name, and the API refuses it", "metadata: {name: …}"}
	case group == "rbac.authorization.k8s.io": // system:node
		return nil
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return &manifestFinding{diag.Warning, valueAt(metadata, "name").Line, "manifest-unnamed", fmt.Sprintf("metadata.name %q is not a name that the API takes", diag.Printable(name)),
			"lower-case letters and digits, with hyphens and points between them"}
	case namespace != "" && len(validation.IsDNS1123Label(namespace)) > 0:
		return &manifestFinding{diag.Warning, valueAt(metadata, "namespace").Line, "manifest-unnamed", fmt.Sprintf("metadata.namespace %q is not a name that the API takes", diag.Printable(namespace)),
			"lower-case letters and digits, with hyphens between them"}
	}
	return nil
}

// coreKinds are the kinds of v1.
var coreKinds = []string{
	"Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node", "PersistentVolume", "PersistentVolumeClaim",
	"Pod", "PodTemplate", "ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount",
}

// isMissing reports whether an API of Kubernetes itself does not have a kind: another one has it, or had it in a
// release before those that k3splan deploys.
func isMissing(apiVersion, kind string) bool {
	if apiVersion == "v1" {
		return !slices.Contains(coreKinds, kind) && !strings.HasSuffix(kind, "List")
	}
	group, _, _ := strings.Cut(apiVersion, "/")
	if kind == "PodSecurityPolicy" {
		return group == "policy" || group == "extensions"
	}
	version := versionOf[kind]
	isOwn := slices.Contains([]string{"app", "extensions"}, group) ||
		slices.ContainsFunc(slices.Collect(maps.Values(versionOf)), func(v string) bool { return strings.HasPrefix(v, group+"/") })
	return version != "" && apiVersion != version && isOwn && apiVersion != "autoscaling/v1"
}

// versionOf has the version of kinds that are often written with another one.
var versionOf = map[string]string{
	"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1",
	"Ingress": "networking.k8s.io/v1", "IngressClass": "networking.k8s.io/v1", "NetworkPolicy": "networking.k8s.io/v1", "StorageClass": "storage.k8s.io/v1",
	"Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1", "ClusterRole": "rbac.authorization.k8s.io/v1",
	"ClusterRoleBinding": "rbac.authorization.k8s.io/v1", "HorizontalPodAutoscaler": "autoscaling/v2", "PodDisruptionBudget": "policy/v1",
	"CustomResourceDefinition": "apiextensions.k8s.io/v1", "PriorityClass": "scheduling.k8s.io/v1", "HelmChart": "helm.cattle.io/v1", "HelmChartConfig": "helm.cattle.io/v1",
}

// kindHint says what was meant by a kind that v1 does not have.
func kindHint(kind string) string {
	if kind == "PodSecurityPolicy" {
		return "take it out: a label of the namespace, pod-security.kubernetes.io/enforce, takes its place"
	}
	known := slices.Concat(coreKinds, slices.Sorted(maps.Keys(versionOf)))
	for _, k := range known {
		if strings.EqualFold(k, kind) {
			kind = k
		}
	}
	if version := versionOf[kind]; version != "" {
		return fmt.Sprintf("write apiVersion: %s and kind: %s", version, kind)
	}
	if slices.Contains(known, kind) {
		return "write kind: " + kind
	}
	return cmp.Or(diag.DidYouMean(kind, known), "correct the kind, or put the group of its API before v1: GROUP/v1")
}

// checkTexts reports values below a key that YAML makes numbers or truth values of, where the API takes
// texts only.
func checkTexts(node *yaml.Node, key, code string) (found []manifestFinding) {
	if value := valueAt(node, key); value != nil && value.Kind != yaml.MappingNode && !yamlfile.IsNull(value) {
		return []manifestFinding{{diag.Error, value.Line, code, key + " does not hold keys with values, and the API refuses it", "key: value"}}
	}
	for name, value := range entriesOf(valueAt(node, key)) {
		if !isText(value) {
			found = append(found, notText(value, name, key, code))
		}
	}
	return found
}

func notText(value *yaml.Node, key, parent, code string) manifestFinding {
	return manifestFinding{diag.Error, value.Line, code,
		fmt.Sprintf("the value of %s below %s is not a text, and the API refuses it", diag.Printable(key), parent), "put it into quotes"}
}

// isText reports whether k3s, which reads YAML 1.1, takes a value for a text. Null is none, but allowed.
func isText(node *yaml.Node) bool {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	switch {
	case node.Kind != yaml.ScalarNode:
		return false
	case node.Style&quoted != 0 || yamlfile.IsNull(node):
		return true
	case node.Style&yaml.TaggedStyle != 0:
		return node.Tag == "!!str"
	}
	text, err := k8syaml.ToJSON([]byte("v: " + node.Value))
	var read struct{ V any }
	if err != nil || json.Unmarshal(text, &read) != nil {
		return true // more than a word, and reported elsewhere if it is wrong
	}
	_, is := read.V.(string)
	return is || read.V == nil
}

// isEncrypted reports whether sops has encrypted a document.
func isEncrypted(node *yaml.Node) bool {
	if sops := valueAt(node, "sops"); isMapping(sops) && (valueAt(sops, "mac") != nil || valueAt(sops, "version") != nil) {
		return true
	}
	for _, key := range []string{"data", "stringData"} {
		for _, value := range entriesOf(valueAt(node, key)) {
			if strings.HasPrefix(value.Value, "ENC[AES256_GCM,") {
				return true
			}
		}
	}
	return false
}

// valueAt returns the value of a key of a mapping; nil without one.
func valueAt(node *yaml.Node, key string) *yaml.Node {
	for name, value := range entriesOf(node) {
		if name == key {
			return value
		}
	}
	return nil
}

func textAt(node *yaml.Node, key string) string {
	if value := valueAt(node, key); value != nil && value.Kind == yaml.ScalarNode && !yamlfile.IsNull(value) {
		return value.Value
	}
	return ""
}

// entriesOf yields the keys and values of a mapping, without those that << merges in, and nothing of
// anything else.
func entriesOf(node *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if !isMapping(node) {
			return
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Tag == "!!merge" {
				continue
			}
			if !yield(node.Content[i].Value, yamlfile.Value(node.Content[i+1])) {
				return
			}
		}
	}
}

// isMapping reports whether a node is a mapping with at least one key.
func isMapping(node *yaml.Node) bool {
	return node != nil && node.Kind == yaml.MappingNode && len(node.Content) > 0
}

// encryptedFile says what has encrypted a whole file, or "".
func encryptedFile(data []byte) string {
	for mark, program := range map[string]string{
		"\x00GITCRYPT\x00": "git-crypt", "$ANSIBLE_VAULT;": "ansible-vault", "age-encryption.org/v1": "age",
		"-----BEGIN AGE ENCRYPTED FILE-----": "age", "-----BEGIN PGP MESSAGE-----": "gpg",
	} {
		if bytes.HasPrefix(data, []byte(mark)) {
			return program
		}
	}
	return ""
}
