package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
)

// byteSize is a flag for an amount of memory: 1G, 512Mi. 0 is not given.
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return resource.NewQuantity(int64(*b), resource.BinarySI).String()
}

func (b *byteSize) Type() string { return "SIZE" }

func (b *byteSize) Set(value string) error {
	quantity, err := resource.ParseQuantity(value)
	switch {
	case err != nil:
		return errors.New("must be a number of bytes, or one with a unit: 800M, 1G, 1.5Gi")
	case quantity.CmpInt64(leastEvalMemory) < 0:
		return fmt.Errorf("must be at least %dM: a single host needs more", leastEvalMemory/1_000_000)
	}
	*b = byteSize(quantity.Value())
	return nil
}

// leastEvalMemory is in bytes.
const leastEvalMemory = 100_000_000

func addEvalMemory(f *pflag.FlagSet, memory *byteSize) {
	f.Var(memory, "eval-memory", "how much memory evaluations may take together, such as 1G (default: most of what is available)")
}
