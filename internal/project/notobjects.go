package project

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Files that look like manifests, and that no cluster has a kind for: k3s would try to apply them for
// ever. Some hold keys.

// configGroups are API groups of files that a program reads, with that program. Groups of objects are not
// among them: kustomize.toolkit.fluxcd.io is Flux's own.
var configGroups = map[string]string{
	"kustomize.config.k8s.io":              "kustomize",
	"builtin":                              "kustomize",
	"viaduct.ai":                           "kustomize, for a plugin",
	"kubeadm.k8s.io":                       "kubeadm",
	"kubelet.config.k8s.io":                "the kubelet",
	"credentialprovider.kubelet.k8s.io":    "the kubelet",
	"kubeproxy.config.k8s.io":              "kube-proxy",
	"kubescheduler.config.k8s.io":          "kube-scheduler",
	"kubecontrollermanager.config.k8s.io":  "kube-controller-manager",
	"cloudcontrollermanager.config.k8s.io": "a cloud controller manager",
	"controllermanager.config.k8s.io":      "kube-controller-manager",
	"apiserver.config.k8s.io":              "kube-apiserver",
	"apiserver.k8s.io":                     "kube-apiserver",
	"audit.k8s.io":                         "kube-apiserver",
	"client.authentication.k8s.io":         "kubectl",
	"imagepolicy.k8s.io":                   "kube-apiserver",
	"controller-runtime.sigs.k8s.io":       "a controller",
	"kind.x-k8s.io":                        "kind",
	"k3d.io":                               "k3d",
	"ctlptl.dev":                           "ctlptl",
	"skaffold":                             "skaffold",
	"k0sctl.k0sproject.io":                 "k0sctl",
	"k0s.k0sproject.io":                    "k0s",
	"kops.k8s.io":                          "kOps",
	"eksctl.io":                            "eksctl",
	"kubekey.kubesphere.io":                "KubeKey",
	"minikube.sigs.k8s.io":                 "minikube",
	"kubectl.kubernetes.io":                "kubectl",
	"kuttl.dev":                            "kuttl",
	"lima-vm.io":                           "Lima",
	"krew.googlecontainertools.github.com": "krew",
	"conftest.dev":                         "conftest",
}

// programOf returns the program whose configuration a file with apiVersion and kind is, or "" for an
// object of a cluster.
func programOf(apiVersion, kind string) string {
	group, _, hasGroup := strings.Cut(apiVersion, "/")
	switch {
	case hasGroup:
		return configGroups[group]
	case apiVersion == "v1" && kind == "Config":
		return "kubectl: a kubeconfig"
	case apiVersion == "builtin":
		return "kustomize"
	case apiVersion == "v1" && slices.Contains([]string{"Status", "APIVersions", "DeleteOptions"}, kind):
		return "a client of the API: an answer, not an object"
	}
	return ""
}

// shapes are files without apiVersion or kind that people keep beside their manifests, by keys that all
// of them have.
var shapes = []struct {
	keys []string
	what string
}{
	{[]string{"creation_rules"}, "the rules of sops"},
	{[]string{"helmDefaults"}, "a helmfile"},
	{[]string{"releases"}, "a helmfile"},
	{[]string{"apiVersion", "name", "version"}, "the description of a Helm chart"},
	{[]string{"machine", "cluster"}, "a machine configuration of Talos"},
	{[]string{"services"}, "a file of Docker Compose"},
	{[]string{"nodes", "ssh_key_path"}, "a configuration of RKE"},
	{[]string{"resources"}, "a kustomization"},
	{[]string{"image", "replicaCount"}, "the values of a Helm chart"},
	{[]string{"bases"}, "a kustomization"},
}

// whatInstead says what a document without apiVersion and kind probably is, by its keys and the name of
// its file, or "".
func whatInstead(name string, node *yaml.Node) string {
	if node.Kind != yaml.MappingNode {
		return ""
	}
	var keys []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		keys = append(keys, node.Content[i].Value)
	}
	stem, _, _ := strings.Cut(strings.ToLower(name), ".")
	for file, what := range map[string]string{
		"values": "the values of a Helm chart", "chart": "the description of a Helm chart", "kustomization": "a kustomization",
		"skaffold": "a configuration of skaffold", "helmfile": "a helmfile", "compose": "a file of Docker Compose",
		"docker-compose": "a file of Docker Compose", "talosconfig": "a configuration of Talos",
	} {
		if stem == file {
			return what
		}
	}
	for _, shape := range shapes {
		if !slices.ContainsFunc(shape.keys, func(key string) bool { return !slices.Contains(keys, key) }) {
			return shape.what
		}
	}
	return ""
}

// notHere is the hint for what is not an object of a cluster.
func notHere(what string) string {
	switch {
	case strings.Contains(what, "kustom"):
		return "move it out of manifests/; kubectl kustomize FOLDER > manifests/NAME.yaml writes the objects"
	case strings.Contains(what, "Helm chart"), strings.Contains(what, "helmfile"):
		return "move it out of manifests/; k3s installs a chart by an object of kind HelmChart"
	case strings.Contains(what, "kubeconfig"):
		return "move it out of manifests/, and take its keys for known to others if it was ever rendered"
	case strings.Contains(what, "kubelet"), strings.Contains(what, "kube-"):
		return "move it out of manifests/; options of k3s are in k3s/server.yaml and k3s/agent.yaml"
	}
	return "move it out of manifests/"
}
