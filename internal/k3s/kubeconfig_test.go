package k3s

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"k3splan/internal/diag"
	"k3splan/internal/k3s/k3stest"
)

// serve answers as the API of a cluster does, to whoever has a certificate of its CA.
func serve(t *testing.T, ca k3stest.Authority, template *x509.Certificate, handler http.HandlerFunc) (port string) {
	t.Helper()
	if template == nil {
		template = &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	}
	if handler == nil {
		handler = k3stest.Answer
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = ca.TLS(template)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	return port
}

func TestTheServerIsTried(t *testing.T) {
	ours, theirs := k3stest.NewAuthority(), k3stest.NewAuthority()
	expired := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
	}
	for name, test := range map[string]struct {
		port    string
		address string
		want    string // in the error
	}{
		"ours":           {port: serve(t, ours, nil, nil)},
		"another CA":     {port: serve(t, theirs, nil, nil), want: "certificate of another cluster"},
		"another name":   {port: serve(t, ours, &x509.Certificate{DNSNames: []string{"x"}}, nil), want: "127.0.0.1"},
		"expired":        {port: serve(t, ours, expired, nil), want: "expired"},
		"nobody":         {port: "1", want: "connection refused"},
		"no admin":       {port: serve(t, ours, nil, answer(401, "")), want: "does not accept its certificate"},
		"forbidden":      {port: serve(t, ours, nil, answer(403, "")), want: "does not accept its certificate"},
		"broken":         {port: serve(t, ours, nil, answer(500, "")), want: "500"},
		"no API":         {port: serve(t, ours, nil, answer(200, "<html>")), want: "not that of a Kubernetes API"},
		"no API, though": {port: serve(t, ours, nil, answer(200, "{}")), want: "not that of a Kubernetes API"},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := ReadKubeconfig([]byte(ours.K3sYAML(test.port)), "rack", "127.0.0.1")
			require.NoError(t, err)
			version, err := config.Check(context.Background())
			if test.want == "" {
				require.NoError(t, err)
				require.Equal(t, "v1.35.1+k3s1", version)
				return
			}
			require.ErrorContains(t, err, test.want)
			for _, secret := range []string{string(config.Key), base64.StdEncoding.EncodeToString(config.Key)} {
				require.NotContains(t, err.Error()+diag.HintOf(err), secret[30:60])
			}
		})
	}
}

func TestReadKubeconfig(t *testing.T) {
	ca := k3stest.NewAuthority()
	good := ca.K3sYAML("6443")
	config, err := ReadKubeconfig([]byte(good), "rack", "10.0.100.12")
	require.NoError(t, err)
	require.Equal(t, "https://10.0.100.12:6443", config.Server)
	config, err = ReadKubeconfig([]byte(strings.Replace(good, ":6443", ":7443", 1)), "rack", "10.0.100.12")
	require.NoError(t, err)
	require.Equal(t, "https://10.0.100.12:7443", config.Server, "the port is the server's own")
	config, err = ReadKubeconfig([]byte(good), "rack", "k3s.example:443")
	require.NoError(t, err)
	require.Equal(t, "https://k3s.example:443", config.Server)

	data, err := config.YAML()
	require.NoError(t, err)
	loaded, err := clientcmd.Load(data)
	require.NoError(t, err)
	require.NoError(t, clientcmd.Validate(*loaded))
	require.Equal(t, "rack", loaded.CurrentContext)
	require.Equal(t, ca.PEM(), loaded.Clusters["rack"].CertificateAuthorityData)
	require.Equal(t, config.Key, loaded.AuthInfos["rack"].ClientKeyData)
	require.Equal(t, config.Certificate, loaded.AuthInfos["rack"].ClientCertificateData)
	require.Equal(t, &api.Context{Cluster: "rack", AuthInfo: "rack"}, stripped(loaded.Contexts["rack"]))

	for name, content := range map[string]string{
		"nothing":        "",
		"no YAML":        "key: [" + good[50:90],
		"a list":         "- x",
		"no certificate": strings.Replace(good, "client-certificate-data", "x", 1),
		"no key":         strings.Replace(good, "client-key-data", "x", 1),
		"no base64":      strings.Replace(good, "client-key-data: ", "client-key-data: '!", 1) + "'",
		"no https":       strings.Replace(good, "https:", "http:", 1),
		"no port":        strings.Replace(good, ":6443", "", 1),
		"two clusters":   strings.Replace(good, "contexts:", "- {name: x, cluster: {server: y}}\ncontexts:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadKubeconfig([]byte(content), "rack", "10.0.100.12")
			require.Error(t, err)
			require.NotContains(t, err.Error(), good[60:80])
		})
	}
}

// stripped is what an entry means, without where it was loaded from.
func stripped(c *api.Context) *api.Context {
	c = c.DeepCopy()
	c.LocationOfOrigin, c.Extensions = "", nil
	return c
}

const usersFile = `# mine, from the course
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: prod   # do not touch
  cluster: {server: "https://prod.example:6443", certificate-authority-data: QUJD, extensions: [{name: x, extension: {a: [1, yes]}}]}
- name: minikube
  cluster:
    server: https://192.168.49.2:8443
    insecure-skip-tls-verify: true
users:
- name: prod-admin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: login
      args: ["--yes", '0123', "no", "1.0"]
      env: [{name: A, value: "on"}]
      interactiveMode: Never
- name: 'token: user'
  user:
    token: |-
      two
      lines
contexts:
- name: prod
  context: {cluster: prod, user: prod-admin, namespace: "on"}
- name: minikube
  context: {cluster: minikube, user: 'token: user'}
current-context: prod
`

// Everything of the user's has the meaning that it had, for client-go as well, and our entries are in.
func TestMerge(t *testing.T) {
	ca := k3stest.NewAuthority()
	config, err := ReadKubeconfig([]byte(ca.K3sYAML("6443")), "rack", "10.0.100.12")
	require.NoError(t, err)
	never := func(string) bool { return false }
	for name, present := range map[string]string{
		"a grown file":    usersFile,
		"CRLF":            strings.ReplaceAll(usersFile, "\n", "\r\n"),
		"JSON":            `{"apiVersion":"v1","kind":"Config","clusters":[{"name":"a","cluster":{"server":"https://a"}}],"users":[],"contexts":null,"current-context":""}`,
		"kubectl's first": "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n",
		"without lists":   "kind: Config\napiVersion: v1\n",
		"a comment":       "# nothing here yet\n{}\n",
		"empty":           " \n",
		"anchors":         "kind: Config\napiVersion: v1\nclusters:\n- &a {name: a, cluster: {server: https://a}}\nusers: [{name: u, user: &t {token: x}}, {name: v, user: *t}]\ncontexts: []\n",
	} {
		t.Run(name, func(t *testing.T) {
			merged, err := config.Merge([]byte(present), never)
			require.NoError(t, err)
			before, err := clientcmd.Load([]byte(present))
			require.NoError(t, err)
			after, err := clientcmd.Load(merged)
			require.NoError(t, err)
			require.NoError(t, clientcmd.ConfirmUsable(*after, "rack"))
			require.Equal(t, "https://10.0.100.12:6443", after.Clusters["rack"].Server)
			require.Equal(t, config.Key, after.AuthInfos["rack"].ClientKeyData)
			if before.CurrentContext == "" {
				require.Equal(t, "rack", after.CurrentContext)
				after.CurrentContext = ""
			}
			delete(after.Clusters, "rack")
			delete(after.AuthInfos, "rack")
			delete(after.Contexts, "rack")
			require.Equal(t, before, after)

			again, err := config.Merge(merged, func(server string) bool { return server == config.Server })
			require.NoError(t, err)
			require.Equal(t, string(merged), string(again), "twice is once")
		})
	}
	merged, err := config.Merge([]byte(usersFile), never)
	require.NoError(t, err)
	for _, kept := range []string{"# mine, from the course", "# do not touch", "args: [\"--yes\", '0123', \"no\", \"1.0\"]", "current-context: prod"} {
		require.Contains(t, string(merged), kept)
	}
}

func TestMergeReplacesOnlyOurs(t *testing.T) {
	ca, next := k3stest.NewAuthority(), k3stest.NewAuthority()
	old, err := ReadKubeconfig([]byte(ca.K3sYAML("6443")), "rack", "10.0.100.12")
	require.NoError(t, err)
	config, err := ReadKubeconfig([]byte(next.K3sYAML("6443")), "rack", "10.0.100.13")
	require.NoError(t, err)
	present, err := old.Merge([]byte(usersFile), func(string) bool { return false })
	require.NoError(t, err)
	merged, err := config.Merge(present, func(server string) bool { return server == "https://10.0.100.12:6443" })
	require.NoError(t, err)
	loaded, err := clientcmd.Load(merged)
	require.NoError(t, err)
	require.Equal(t, next.PEM(), loaded.Clusters["rack"].CertificateAuthorityData)
	require.Equal(t, config.Key, loaded.AuthInfos["rack"].ClientKeyData)
	require.Len(t, loaded.Clusters, 3)
	require.Len(t, loaded.AuthInfos, 3)
	require.Len(t, loaded.Contexts, 3)

	_, err = config.Merge(present, func(string) bool { return false })
	require.ErrorContains(t, err, `the file already has a cluster "rack" that is not of this plan`)
	require.Contains(t, diag.HintOf(err), "--name")
	for _, entry := range []string{"users: [{name: rack, user: {token: x}}]", "contexts: [{name: rack, context: {cluster: a, user: b}}]"} {
		_, err = config.Merge([]byte("kind: Config\n"+entry+"\n"), func(string) bool { return true })
		require.ErrorContains(t, err, "the file already has a", entry)
	}
	for _, broken := range []string{"- x\n", "key: [", "a: 1\n---\nb: 2\n", "kind: Config\nclusters: {a: b}\n", "just words"} {
		_, err = config.Merge([]byte(broken), func(string) bool { return true })
		require.Error(t, err, broken)
	}
}

func TestOthers(t *testing.T) {
	ca := k3stest.NewAuthority()
	config, err := ReadKubeconfig([]byte(ca.K3sYAML("6443")), "rack", "10.0.100.12")
	require.NoError(t, err)
	own, err := config.YAML()
	require.NoError(t, err)
	require.False(t, config.Others(nil))
	require.False(t, config.Others(own))
	require.True(t, config.Others([]byte(usersFile)))
	require.True(t, config.Others([]byte("shopping: list\n")))
	require.True(t, config.Others([]byte("key: [")))
	require.True(t, config.Others([]byte("plain words")))
}

func FuzzMerge(f *testing.F) {
	f.Add(usersFile)
	f.Add("clusters: &a []\nusers: *a\n")
	f.Add("{}")
	config := &Kubeconfig{Name: "rack", Server: "https://10.0.100.12:6443", CA: []byte("a"), Certificate: []byte("b"), Key: []byte("c")}
	f.Fuzz(func(t *testing.T, present string) {
		merged, err := config.Merge([]byte(present), func(string) bool { return true })
		if err != nil {
			return
		}
		before, err := clientcmd.Load([]byte(present))
		if err != nil {
			return
		}
		after, err := clientcmd.Load(merged)
		require.NoError(t, err)
		require.Contains(t, after.Clusters, "rack")
		for name, cluster := range before.Clusters {
			if name != "rack" {
				require.Equal(t, cluster, after.Clusters[name])
			}
		}
	})
}
