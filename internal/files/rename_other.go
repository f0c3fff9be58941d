//go:build !linux

package files

import "errors"

func renameNoReplace(from, to string) error { return errors.ErrUnsupported }
