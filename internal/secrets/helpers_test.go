package secrets

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// One hash of the word "hello" for each method, made by libxcrypt 4.4.33.
var hashesOfHello = map[string]string{
	"sha512":            "$6$ab$kCEdajKfECjkWwo5i4GMTY4WW.ADIevHyGdlZb3r8wskFWlOJqWZgemJ96NLPhkdsWWH5zZrOY6OzTC0hpeuU1",
	"sha512 rounds":     "$6$rounds=1000$ab$D6o5zTS30ExHDH8mXVwZpCdGER0xwcawZqx3faNtRrpOfNrN8nLa2um6TkmD.Z4TWppafJP.VJQRwzpysfO7r0",
	"yescrypt":          "$y$j9T$abcdefgh$epWtSs4Gu0OBWJFQE2cTWrKuGouFdvT/8K.cw.oANm/",
	"yescrypt j75":      "$y$j75$abcdefgh$VSJq5Nf1y3/Io1IvkGBmc1ma66L.wiz59/87TBcOT7A",
	"yescrypt unsalted": "$y$j9T$$CCvcj9JFRFoWahx/AHoCOa1VfCTb2YDqQQ4bkylaJ18",
	"gost-yescrypt":     "$gy$j9T$abcdefgh$nGT/MbF7ohJRXpNSJYS325OPiBFQHMADRsCdc4JN9y0",
	"bcrypt 2b":         "$2b$05$abcdefghijklmnopqrstuuWHxnxkyNt6AHCwFMQaY6auyqJA8E98a",
	"bcrypt 2y":         "$2y$05$abcdefghijklmnopqrstuuWHxnxkyNt6AHCwFMQaY6auyqJA8E98a",
	"bcrypt 2a":         "$2a$05$abcdefghijklmnopqrstuuWHxnxkyNt6AHCwFMQaY6auyqJA8E98a",
	"scrypt":            "$7$CU..../....abcdefgh$s5a0tlnh.XzRBeTynH8HoCuKO1Lx8jxWconoaFCjAs2",
}

const (
	md5OfHello    = "$1$ab$GG.jb7EqbyCQUXKGIbIxc0"
	desOfHello    = "abl0JrMf6tlhw"
	sha256OfHello = "$5$ab$SgqvpvcfcPo/f6dlg8h3QNsq4HHAUeqtVXi00KFYXf."
)

var (
	goodHash  = hashesOfHello["sha512"] + "\n"
	nextHash  = hashesOfHello["yescrypt"] + "\n"
	goodToken = strings.Repeat("0123456789abcdef", 4) + "\n"
)

// project makes a project folder with these secrets, of mode 0600 in a folder of mode 0700.
func project(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, Dir), 0o700))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, Dir, name), []byte(content), 0o600))
	}
	return dir
}

// found returns problems as `severity code file:line`.
func found(problems diag.Problems) []string {
	lines := []string{}
	for _, p := range problems {
		place := p
		place.Message, place.Value, place.Column = "", "", ""
		lines = append(lines, string(p.Severity)+" "+p.Code+" "+strings.TrimSuffix(place.String(), ": "))
	}
	return lines
}

// newKey returns a new ed25519 key as `type base64`.
func newKey(t testing.TB) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return line(t, public)
}

func line(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	k, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return line(t, private.Public())
}

// rawKey returns a key of the type that stands first in its fields, whatever they say.
func rawKey(kind string, fields any) string {
	return kind + " " + base64Of(ssh.Marshal(fields))
}

// rsaKey makes up a modulus: nobody will sign with it.
func rsaKey(bits int) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return rawKey("ssh-rsa", struct {
		Type string
		E, N *big.Int
	}{"ssh-rsa", big.NewInt(65537), n.Add(n, big.NewInt(1))})
}

func dsaKey() string {
	p := new(big.Int).Lsh(big.NewInt(1), 1023)
	return rawKey("ssh-dss", struct {
		Type       string
		P, Q, G, Y *big.Int
	}{"ssh-dss", p, new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(2), big.NewInt(4)})
}

func securityKey(t testing.TB) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	const kind = "sk-ssh-ed25519@openssh.com"
	return rawKey(kind, struct {
		Type, Key, Application string
	}{kind, string(public), "ssh:"})
}

func certificate(t testing.TB) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	k, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	cert := &ssh.Certificate{Key: k, CertType: ssh.UserCert, ValidPrincipals: []string{"olaf"}, ValidBefore: ssh.CertTimeInfinity}
	require.NoError(t, cert.SignCert(rand.Reader, signer))
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
}

func base64Of(blob []byte) string { return base64.StdEncoding.EncodeToString(blob) }
