//go:build deps

package k3splan

import (
	_ "filippo.io/age"
	_ "github.com/Masterminds/sprig/v3"
	_ "github.com/agnivade/levenshtein"
	_ "github.com/aymanbagabas/go-udiff"
	_ "github.com/gobwas/glob"
	_ "github.com/gocarina/gocsv"
	_ "github.com/gofrs/flock"
	_ "github.com/google/renameio/v2"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/stretchr/testify/require"
	_ "github.com/tredoe/osutil/user/crypt/sha512_crypt"
	_ "golang.org/x/crypto/ssh"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/text/encoding/unicode"
	_ "gopkg.in/yaml.v3"
	_ "k8s.io/apimachinery/pkg/util/validation"
	_ "pgregory.net/rapid"
)
