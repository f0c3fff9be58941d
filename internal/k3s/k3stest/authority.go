// Package k3stest gives tests the API of a cluster and the kubeconfig that k3s writes for it.
// Nothing in it is for the program.
package k3stest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"time"
)

// Authority is the CA of a cluster. Its methods panic where there is no randomness, as they serve
// programs of tests, too.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes the CA of another cluster.
func NewAuthority() Authority {
	certificate, key := Authority{}.sign(&x509.Certificate{IsCA: true})
	return Authority{certificate, key}
}

// sign makes a certificate for servers and clients; the CA that is none signs it by itself.
func (a Authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, parentKey := template, key
	if a.certificate != nil {
		parent, parentKey = a.certificate, a.key
	}
	raw := must(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey))
	return must(x509.ParseCertificate(raw)), key
}

// PEM is the CA's certificate.
func (a Authority) PEM() []byte { return encode("CERTIFICATE", a.certificate.Raw) }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// K3sYAML is the administrator's kubeconfig as k3s writes it on a server, here for an API at port.
func (a Authority) K3sYAML(port string) string {
	admin, key := a.sign(&x509.Certificate{})
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: https://127.0.0.1:%s
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {}
users:
- name: default
  user:
    client-certificate-data: %s
    client-key-data: %s
`, text(a.PEM()), port, text(encode("CERTIFICATE", admin.Raw)), text(encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))))
}

// TLS is for a server with a certificate after a template, to which clients may show one of this CA.
func (a Authority) TLS(template *x509.Certificate) *tls.Config {
	certificate, key := a.sign(template)
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pool,
	}
}

// Answer returns the API's version to clients with a certificate.
func Answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(r.TLS.PeerCertificates) == 0:
		http.Error(w, `{"kind":"Status","status":"Failure","code":401}`, http.StatusUnauthorized)
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"major":"1","minor":"35","gitVersion":"v1.35.1+k3s1"}`)
	default:
		http.NotFound(w, r)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
