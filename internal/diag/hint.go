package diag

import (
	"errors"
	"io/fs"
)

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }
func (e *hinted) Hint() string  { return e.hint }

// WithHint returns err with advice on how to mend it. The text of the error stays as it is, so callers
// may wrap it further; errors.Is and errors.As see through it. A hint may have several lines; an empty
// one, or a nil err, returns err itself.
func WithHint(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return &hinted{err, hint}
}

// HintOf returns the advice of the outermost error in the chain that has any, or "".
func HintOf(err error) string {
	var advised interface{ Hint() string }
	if errors.As(err, &advised) {
		return advised.Hint()
	}
	return ""
}

// Reason returns what is wrong without the path of an fs.PathError, for messages that name the file
// already.
func Reason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// FromError returns an error as a problem of severity Error at a file. Its message is the error's text
// without the path, its hint the error's advice.
func FromError(err error, file, code string) Problem {
	return Problem{File: file, Severity: Error, Code: code, Message: Reason(err).Error(), Hint: HintOf(err)}
}
