package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"
)

// authority is the CA of the cluster, in PEM. The first server makes it, the others get it when they join.
type authority struct{ Certificate, Key string }

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := template("k3s-server-ca@lab")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return authority{encode("CERTIFICATE", certificate), encode("PRIVATE KEY", private)}, err
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// serving returns the settings of a server at an address, which programs in its container reach at 127.0.0.1.
func (a authority) serving(address string) (*tls.Config, error) {
	ca, err := tls.X509KeyPair([]byte(a.Certificate), []byte(a.Key))
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template("k3s")
	template.IPAddresses = []net.IP{net.ParseIP(address), net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, err
}

// hash is what full tokens contain of the CA.
func hash(certificate string) string {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// trust lets post reach servers of a cluster, and no others.
func trust(certificate string) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(certificate)) {
		return errors.New("not a certificate of a CA")
	}
	client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return nil
}

// trustServer asks a server for the certificate of its CA and trusts it, if the token does not name another one.
func trustServer(address string, t token) error {
	anyone := &http.Client{Timeout: client.Timeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := anyone.Get("https://" + address + "/cacerts")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	certificate, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if t.hash != "" && t.hash != hash(string(certificate)) {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", t.hash, hash(string(certificate)))
	}
	return trust(string(certificate))
}
