//go:build !linux

package bootstick

import (
	"context"
	"errors"
)

var errNoMedium = errors.New("no medium")

func deviceNumber(string) string { return "" }

type disk struct{ device }

// CheckAccess reports whether this user can write to the device now.
func (t *Target) CheckAccess(ctx context.Context) error {
	_, err := t.open(ctx)
	return err
}

func (t *Target) open(context.Context) (*disk, error) {
	return nil, &Unsupported{"sticks are written on Linux only", "keep the image with --output FILE"}
}
