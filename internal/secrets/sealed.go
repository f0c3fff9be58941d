package secrets

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"k3splan/internal/plan"
)

// SealedExtension ends the name of a file that [Vault.Seal] encrypted.
const SealedExtension = ageExtension

// Encrypts reports whether [Vault.Seal] encrypts: the secrets are kept by age.
func (v *Vault) Encrypts() bool { return v.where.Kind == plan.SecretAge }

// Seal returns a writer that encrypts what is written to it to the recipients of the secrets, for files that
// are as secret and of any size. Where the secrets are not kept by age, it changes nothing. Close ends it
// and leaves out open.
func (v *Vault) Seal(out io.Writer) (io.WriteCloser, error) {
	if keeper, ok := v.keeper.(*ageKeeper); ok {
		return keeper.encrypt(out)
	}
	return openEnd{out}, nil
}

type openEnd struct{ io.Writer }

func (openEnd) Close() error { return nil }

// sealedHeader begins every file of age in its binary form (https://c2sp.org/age).
const sealedHeader = "age-encryption.org/v1\n"

// Unseal returns the content of a file that was written through [Vault.Seal], encrypted or not, and whatever
// keeps the secrets now. The error of a file that cannot be decrypted is fit to follow its name.
func (v *Vault) Unseal(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(in, 64<<10)
	start, err := buffered.Peek(len(sealedHeader))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(start, []byte(sealedHeader)) {
		return buffered, nil
	}
	keeper, ok := v.keeper.(*ageKeeper)
	if !ok {
		keeper = &ageKeeper{folder: folderOf(v.project), ask: v.ask}
	}
	content, err := keeper.decrypt(buffered)
	if err != nil {
		return nil, err
	}
	return &undamaged{content}, nil
}

// undamaged replaces the errors of age.
type undamaged struct{ io.Reader }

func (u *undamaged) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errDamaged
	}
	return n, err
}

// IsSealed reports whether a file is encrypted by age in its binary form. It reads the file's beginning.
func IsSealed(in io.ReaderAt) (bool, error) {
	start := make([]byte, len(sealedHeader))
	n, err := in.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(start[:n]) == sealedHeader, nil
}
