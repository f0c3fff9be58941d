package k3s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k3splan/internal/diag"

	"gopkg.in/yaml.v3"
)

// Kubeconfig is access to one cluster as its administrator. It is a secret.
type Kubeconfig struct {
	// Name is the name of the context, the cluster and the user.
	Name string
	// Server is the URL of the API ("https://10.0.100.12:6443").
	Server string
	// CA, Certificate and Key are PEM.
	CA, Certificate, Key []byte
}

// file is a kubeconfig with the fields that matter here.
type file struct {
	APIVersion     string         `yaml:"apiVersion"`
	Kind           string         `yaml:"kind"`
	Clusters       []namedCluster `yaml:"clusters"`
	Users          []namedUser    `yaml:"users"`
	Contexts       []namedContext `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
}

type namedCluster struct {
	Name    string  `yaml:"name"`
	Cluster cluster `yaml:"cluster"`
}

type cluster struct {
	CA     string `yaml:"certificate-authority-data"`
	Server string `yaml:"server"`
}

type namedUser struct {
	Name string `yaml:"name"`
	User user   `yaml:"user"`
}

type user struct {
	Certificate string `yaml:"client-certificate-data"`
	Key         string `yaml:"client-key-data"`
}

type namedContext struct {
	Name    string     `yaml:"name"`
	Context contextRef `yaml:"context"`
}

type contextRef struct {
	Cluster string `yaml:"cluster"`
	User    string `yaml:"user"`
}

// ReadKubeconfig reads what k3s wrote on a server and sets the cluster's name and the server's address. The
// port is the server's own unless the address has one. The error shows nothing of the content.
func ReadKubeconfig(content []byte, name, address string) (*Kubeconfig, error) {
	var f file
	if err := yaml.Unmarshal(content, &f); err != nil { // its text may quote the content
		return nil, errors.New("the server's answer is not a kubeconfig")
	}
	if len(f.Clusters) != 1 || len(f.Users) != 1 {
		return nil, errors.New("the server's kubeconfig does not have exactly one cluster and one user")
	}
	c := &Kubeconfig{Name: name}
	for _, part := range []struct {
		what, text string
		to         *[]byte
	}{
		{"CA", f.Clusters[0].Cluster.CA, &c.CA},
		{"certificate", f.Users[0].User.Certificate, &c.Certificate},
		{"key", f.Users[0].User.Key, &c.Key},
	} {
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part.text))
		if err != nil || len(data) == 0 {
			return nil, fmt.Errorf("the server's kubeconfig has no %s", part.what)
		}
		*part.to = data
	}
	own, err := url.Parse(f.Clusters[0].Cluster.Server)
	if err != nil || own.Scheme != "https" || own.Port() == "" {
		return nil, errors.New("the server's kubeconfig has no https address with a port")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, own.Port())
	}
	c.Server = "https://" + address
	return c, nil
}

// YAML returns the config as a file of its own.
func (c *Kubeconfig) YAML() ([]byte, error) {
	return encode(file{
		APIVersion: "v1", Kind: "Config", CurrentContext: c.Name,
		Clusters: []namedCluster{{c.Name, cluster{base64.StdEncoding.EncodeToString(c.CA), c.Server}}},
		Users:    []namedUser{{c.Name, user{base64.StdEncoding.EncodeToString(c.Certificate), base64.StdEncoding.EncodeToString(c.Key)}}},
		Contexts: []namedContext{{c.Name, contextRef{c.Name, c.Name}}},
	})
}

const checkTimeout = 15 * time.Second

// Check logs in to the server and returns its version ("v1.31.14+k3s1").
func (c *Kubeconfig) Check(ctx context.Context) (version string, err error) {
	fail := func(err error, hint string) (string, error) {
		return "", diag.WithHint(fmt.Errorf("the kubeconfig does not work with %s: %w", c.Server, err), hint)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CA) {
		return fail(errors.New("its CA is not a certificate"), "")
	}
	certificate, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil { // says which of the two is wrong, and quotes neither
		return fail(fmt.Errorf("its certificate and key: %w", err), "")
	}
	client := &http.Client{Timeout: checkTimeout, Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment, // as kubectl does
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Server+"/version", nil)
	if err != nil {
		return fail(err, "")
	}
	response, err := client.Do(request)
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
	)
	switch {
	case errors.As(err, &authority):
		return fail(errors.New("the server at that address has a certificate of another cluster"), "does another machine have that address?")
	case errors.As(err, &hostname):
		return fail(hostname, "add the address to tls_san of the network and deploy, or name another server with --server")
	case err != nil:
		var plain *url.Error
		if errors.As(err, &plain) {
			err = plain.Err
		}
		return fail(err, "this machine must be able to reach the server's address; --address names another one")
	}
	defer response.Body.Close()
	var answer struct {
		GitVersion string `json:"gitVersion"`
	}
	switch {
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		return fail(fmt.Errorf("the server does not accept its certificate (%s)", response.Status), "")
	case response.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("the server answers %s", response.Status), "")
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&answer); err != nil || answer.GitVersion == "" {
		return fail(errors.New("the answer is not that of a Kubernetes API"), "")
	}
	return answer.GitVersion, nil
}
