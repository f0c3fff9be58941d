//go:build !linux

package stick

import (
	"context"
	"errors"
)

var errNoMedium = errors.New("no medium")

func deviceNumber(string) string { return "" }

func openedNumber(string) string { return "" }

func backingOf(_, path string) backing { return backing{path: path} }

type disk struct{ device }

// CheckAccess checks that this user can write to the device now.
func (t *Target) CheckAccess(ctx context.Context) error {
	_, err := t.open(ctx)
	return err
}

func (t *Target) open(context.Context) (*disk, error) {
	return nil, refuse("keep the image with --output FILE", "boot sticks can be written on Linux only")
}
