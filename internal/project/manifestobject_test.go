package project

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestObjectsOfAManifest(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"
	const readable = "manifest-secret"
	for name, test := range map[string]struct {
		file, text string
		want       []string
		hint       string
	}{
		// what is not an object of a cluster
		"kustomization":                {"kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n", []string{"manifest-not-object:1"}, "kubectl kustomize"},
		"kustomization without a kind": {"kustomization.yml", "resources: [a.yaml]\n", []string{"manifest-not-object:1"}, "kubectl kustomize"},
		"kustomization of Flux":        {"flux.yaml", "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\n", nil, ""},
		"kubeconfig":                   {"config.yaml", "apiVersion: v1\nkind: Config\nusers: [{name: x, user: {client-key-data: aHVudGVyMg==}}]\n", []string{"manifest-not-object:1"}, "keys"},
		"kubeadm":                      {"a.yaml", "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n", []string{"manifest-not-object:1"}, ""},
		"kubelet":                      {"a.yaml", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", []string{"manifest-not-object:1"}, "k3s/agent.yaml"},
		"encryption of the API server": {"a.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{providers: [{aescbc: {keys: [{secret: hunter2}]}}]}]\n", []string{"manifest-not-object:1"}, ""},
		"audit policy":                 {"a.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\n", []string{"manifest-not-object:1"}, ""},
		"cluster of kind":              {"a.yaml", "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n", []string{"manifest-not-object:1"}, ""},
		"cluster of Cluster API":       {"a.yaml", "kind: Cluster\napiVersion: cluster.x-k8s.io/v1beta1\nmetadata: {name: x}\n", nil, ""},
		"skaffold":                     {"a.yaml", "apiVersion: skaffold/v4beta6\nkind: Config\n", []string{"manifest-not-object:1"}, ""},
		"chart":                        {"Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\n", []string{"manifest-invalid:0", "manifest-not-object:1"}, ""},
		"values":                       {"values.yaml", "replicaCount: 1\n", []string{"manifest-not-object:1"}, "HelmChart"},
		"helmfile":                     {"a.yaml", "releases: []\n", []string{"manifest-not-object:1"}, "HelmChart"},
		"compose":                      {"docker-compose.yml", "services: {web: {image: nginx}}\n", []string{"manifest-not-object:1"}, ""},
		"Talos":                        {"a.yaml", "version: v1alpha1\nmachine: {token: hunter2}\ncluster: {}\n", []string{"manifest-not-object:1"}, ""},
		"rules of sops":                {"a.yaml", "creation_rules: [{age: age1x}]\n", []string{"manifest-not-object:1"}, ""},
		"in a list":                    {"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Config\n", []string{"manifest-not-object:4"}, ""},
		"as JSON":                      {"a.json", `{"apiVersion": "v1", "kind": "Config"}`, []string{"manifest-not-object:1"}, ""},
		"nothing that is known":        {"a.yaml", "colour: blue\n", []string{"manifest-invalid:1"}, ""},
		"an object of one's own":       {"a.yaml", "apiVersion: example.org/v1\nkind: Config\nmetadata: {name: x}\n", nil, ""},
		"a chart of k3s":               {"a.yaml", "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: x}\nspec: {valuesContent: \"a: 1\"}\n", nil, ""},
		// Secrets
		"base64":                     {"a.yaml", secret + "data: {password: aHVudGVyMg==}\n", []string{readable + ":1"}, ""},
		"base64 over lines":          {"a.yaml", secret + "data:\n  password: |\n    aHVudGVy\n    Mg==\n", []string{readable + ":1"}, ""},
		"text":                       {"a.yaml", secret + "data: {password: hunter2 and more}\n", []string{readable + ":1", "manifest-secret-invalid:4"}, "stringData"},
		"a number":                   {"a.yaml", secret + "data: {port: 5432}\n", []string{readable + ":1", "manifest-secret-invalid:4"}, "stringData"},
		"text where it may be":       {"a.yaml", secret + "stringData: {password: hunter2 and more}\n", []string{readable + ":1"}, ""},
		"a number where texts are":   {"a.yaml", secret + "stringData: {port: 5432}\n", []string{readable + ":1", "manifest-secret-invalid:4"}, "quotes"},
		"a word of YAML 1.1":         {"a.yaml", secret + "stringData: {enabled: yes}\n", []string{readable + ":1", "manifest-secret-invalid:4"}, "quotes"},
		"a quoted word":              {"a.yaml", secret + "stringData: {enabled: 'yes'}\n", []string{readable + ":1"}, ""},
		"a secret of another group":  {"a.yaml", "apiVersion: example.org/v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: not base64}\n", nil, ""},
		"sealed":                     {"a.yaml", "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: x}\nspec: {encryptedData: {a: AgBy}}\n", nil, ""},
		"external":                   {"a.yaml", "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nmetadata: {name: x}\n", nil, ""},
		"encrypted by sops":          {"a.yaml", secret + "data: {a: 'ENC[AES256_GCM,data:x,type:str]'}\nsops: {version: 3.8.1, mac: x}\n", []string{"manifest-encrypted:1"}, "SealedSecret"},
		"encrypted, without the key": {"a.yaml", secret + "stringData: {a: 'ENC[AES256_GCM,data:x,type:str]'}\n", []string{"manifest-encrypted:1"}, ""},
		"a map encrypted by sops":    {"a.yaml", "apiVersion: v1\nkind: ConfigMap\ndata: {a: 'ENC[AES256_GCM,data:x]'}\nsops: {version: 3.8.1, mac: x}\n", []string{"manifest-encrypted:1"}, ""},
		"encrypted by ansible":       {"a.yaml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", []string{"manifest-encrypted:0"}, ""},
		"encrypted by git-crypt":     {"a.yaml", "\x00GITCRYPT\x00abc", []string{"manifest-encrypted:0"}, ""},
		"a private key in a map":     {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  key: |\n    -----BEGIN OPENSSH " + "PRIVATE KEY-----\n    hunter2\n", []string{readable + ":6"}, "sealed"},
		"a key of WireGuard":         {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  wg0.conf: |\n    [Interface]\n    PrivateKey = " + strings.Repeat("a", 43) + "=\n", []string{readable + ":7"}, "sealed"},
		"a public key in a map":      {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {key: '-----BEGIN PUBLIC KEY-----'}\n", nil, ""},
		"two objects of JSON":        {"a.json", `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}` + "\n" + `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y"}}` + "\n", []string{"manifest-invalid:2"}, "write a line ---"},
		// kinds
		"a kind in small letters":        {"a.yaml", "apiVersion: v1\nkind: configmap\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "write kind: ConfigMap"},
		"a kind of another group":        {"a.yaml", "apiVersion: v1\nkind: deployment\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "write apiVersion: apps/v1 and kind: Deployment"},
		"a misspelt kind":                {"a.yaml", "apiVersion: v1\nkind: Sevice\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, `did you mean "Service"?`},
		"a version of old releases":      {"a.yaml", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "write apiVersion: networking.k8s.io/v1 and kind: Ingress"},
		"a version before the last":      {"a.yaml", "apiVersion: batch/v1beta1\nkind: CronJob\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "batch/v1 "},
		"a group of almost the name":     {"a.yaml", "apiVersion: app/v1\nkind: Deployment\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "apps/v1 "},
		"a policy of old releases":       {"a.yaml", "apiVersion: policy/v1beta1\nkind: PodSecurityPolicy\nmetadata: {name: x}\n", []string{"manifest-invalid:2"}, "take it out"},
		"an older version that is there": {"a.yaml", "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: x}\n", nil, ""},
		"a kind of the same name":        {"a.yaml", "apiVersion: config.openshift.io/v1\nkind: Ingress\nmetadata: {name: x}\n", nil, ""},
		"a name with a hyphen in front":  {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: -x\n", []string{"manifest-unnamed:4"}, "between them"},
		"a namespace with a point":       {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x.y\n  namespace: a.b\n", []string{"manifest-unnamed:5"}, "between them"},
		"a list for a map":               {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n- a\n", []string{"manifest-invalid:5"}, "key: value"},
		"a list of a kind":               {"a.yaml", "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: x}}]\n", nil, ""},
		// texts
		"a name that is a number":       {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: 5}\n", []string{"manifest-invalid:3"}, "quotes"},
		"a namespace that is a number":  {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: 1e3\n", []string{"manifest-invalid:5"}, "quotes"},
		"a variable that is a number":   {"a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - env:\n    - name: PORT\n      value: 80\n", []string{"manifest-invalid:8"}, "quotes"},
		"arguments, some not texts":     {"a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {initContainers: [{command: [sleep, 5], args: ['5', yes]}]}}}\n", []string{"manifest-invalid:4", "manifest-invalid:4"}, "quotes"},
		"a port of a container":         {"a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{ports: [{containerPort: 80}], env: [{name: A, valueFrom: {}}, {name: B, value: }]}]}\n", nil, ""},
		"env of an object of one's own": {"a.yaml", "apiVersion: example.org/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {containers: [{env: [{name: A, value: 1}]}]}\n", nil, ""},
		"a map of texts":                {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b, c: '1'}\n", nil, ""},
		"a map with a number":           {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: b\n  port: 8080\n", []string{"manifest-invalid:6"}, "quotes"},
		"a map with a truth":            {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  on_error: off\n", []string{"manifest-invalid:5"}, "quotes"},
		"a label with a truth":          {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  labels: {x/enforced: true}\n", []string{"manifest-invalid:5"}, "quotes"},
		"a list of maps":                {"a.yaml", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: a}\n  data: {n: 1}\n", []string{"manifest-invalid:5"}, "quotes"},
		"a template":                    {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {{ .Release.Name }}\n", []string{"manifest-invalid:4"}, "helm template"},
		"a template around":             {"a.yaml", "{{- if .Values.on }}\napiVersion: v1\nkind: Namespace\n{{- end }}\n", []string{"manifest-invalid:1"}, "helm template"},
		"a template in a list":          {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nx:\n  - {{ .a }}\n", []string{"manifest-invalid:5"}, "helm template"},
		"a template in quotes":          {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"{{ .Release.Name }}-x\"\n", []string{"manifest-invalid:1"}, "helm template"},
		"text of templates":             {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: \"{{ $labels.x }}\"\n  b: |\n    {{ range .Alerts }}\n", nil, ""},
		"no name":                       {"a.yaml", "apiVersion: v1\nkind: Namespace\n", []string{"manifest-unnamed:1"}, "metadata: {name: …}"},
		"no name in metadata":           {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {generateName: x-}\n", []string{"manifest-unnamed:1"}, ""},
		"no name in a list":             {"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n", []string{"manifest-unnamed:4"}, ""},
		"a name of capitals":            {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: My_App\n", []string{"manifest-unnamed:4"}, "lower-case"},
		"a name of a role":              {"a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: \"system:Node\"}\n", nil, ""},
		"comments":                      {"a.yaml", "# later\n---\n# apiVersion: v1\n", []string{"manifest-ignored:0"}, ".off"},
		"an addon's change":             {"traefik.yaml", "apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata: {name: traefik}\n", []string{"manifest-duplicate:0"}, "mv manifests/traefik.yaml manifests/traefik-config.yaml"},
		"a blank is missing":            {"a.yaml", "apiVersion:v1\nkind: Namespace\n", []string{"manifest-invalid:1"}, "write: apiVersion: v1"},
		"a tab":                         {"a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n\tname: a\n", []string{"manifest-invalid:4"}, "blanks"},
		"a key twice, in JSON":          {"a.json", `{"apiVersion": "v1", "kind": "Namespace", "kind": "Pod"}`, []string{"manifest-invalid:1"}, ""},
		"merged keys":                   {"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: x}\ndata:\n  <<: *m\n  a: b\n", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems, err := Load(folder(t, map[string]string{"manifests/" + test.file: test.text}))
			require.NoError(t, err)
			var found []string
			for _, text := range brief(problems) {
				code, place, _ := strings.Cut(text, " ")
				_, line, _ := strings.Cut(place, ":")
				found = append(found, code+":"+line)
			}
			require.Equal(t, test.want, found, "%v", problems)
			hints := ""
			for _, p := range problems {
				hints += p.Hint
				require.NotContains(t, p.String()+p.Hint, "hunter2")
				require.NotContains(t, p.String()+p.Hint, "aHVudGVy")
			}
			require.Contains(t, hints, test.hint)
		})
	}
}
