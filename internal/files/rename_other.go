//go:build !linux

package files

import "errors"

var renameNoReplace = func(from, to string) error { return errors.ErrUnsupported }
