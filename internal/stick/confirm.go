package stick

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
)

// Confirm shows what would be erased and asks for the host's name to be typed. With yes it shows the
// same and does not ask, which is accepted for removable USB devices only. The error is an [ErrRefused],
// or a *[Failure] of kind [Cancelled].
func Confirm(ctx context.Context, user ask.User, target *Target, host string, yes bool) error {
	disk := target.Disk
	user.Say("everything on this device will be erased:\n\n%s", disk.Describe())
	if yes {
		if !disk.Stick() {
			return refuse("omit --yes and type the host's name", "--yes is accepted for removable USB devices only, which %s is not", disk.Path)
		}
		return nil
	}
	err := user.Type(ctx, fmt.Sprintf("erase %s and write the boot stick? To confirm, type the host's name.", disk.Path), host)
	switch {
	case errors.Is(err, ask.ErrInterrupted), err != nil && ctx.Err() != nil:
		return (&Failure{Kind: Cancelled, Device: disk.Path, Offset: -1, Err: err}).advised()
	case errors.Is(err, ask.ErrNoTerminal):
		return diag.WithHint(refusal{err}, "in scripts: --yes, for removable USB devices only")
	case errors.Is(err, ask.ErrDeclined):
		return diag.WithHint(refusal{err}, "run the same command again and type the host's name")
	}
	return err
}

// Describe returns a description of the disk for a person, in several lines.
func (d Disk) Describe() string {
	var out strings.Builder
	line := func(key, value string) {
		if value == "" {
			value = "unknown"
		}
		fmt.Fprintf(&out, "  %-8s %s\n", key, value)
	}
	line("device", d.Path)
	line("model", d.Model)
	line("size", fmt.Sprintf("%s (%d bytes)", FormatSize(d.Size), d.Size))
	line("serial", d.Serial)
	bus := d.Bus
	if bus == "" {
		bus = "unknown"
	}
	if d.Removable {
		bus += ", removable"
	} else {
		bus += ", not removable"
	}
	line("bus", bus)
	contents := d.ContentLines()
	for i, content := range contents {
		key := ""
		if i == 0 {
			key = "content"
		}
		line(key, content)
	}
	return out.String()
}

// ContentLines describes what is on the disk, one line each; at least one.
func (d Disk) ContentLines() []string {
	var lines []string
	if d.Table != "" {
		lines = append(lines, "partition table "+d.Table)
	}
	for _, content := range d.Contents {
		text := content.Path + " " + content.Kind
		if content.Label != "" {
			text += ` "` + content.Label + `"`
		}
		text += " " + FormatSize(content.Size)
		if len(content.Mounts) > 0 {
			text += ", in use at " + strings.Join(content.Mounts, ", ")
		}
		lines = append(lines, text)
	}
	if len(lines) == 0 {
		return []string{"nothing that the system recognizes"}
	}
	return lines
}
