package bootstick

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Terminal is where a person is asked.
type Terminal struct {
	In  io.Reader
	Out io.Writer
	// Interactive says that In is a terminal.
	Interactive bool
}

// Unconfirmed says that nobody agreed to the erasing. Nothing was changed.
type Unconfirmed struct{ message, hint string }

func (u *Unconfirmed) Error() string { return u.message }

// Hint says how to go on.
func (u *Unconfirmed) Hint() string { return u.hint }

// Confirm shows what would be erased and asks for the host's name to be typed.
// With yes it shows the same and does not ask; that is for removable USB devices
// only. The error is *[Unconfirmed], or *[Failure] of kind [Cancelled].
func Confirm(ctx context.Context, terminal Terminal, target *Target, host string, yes bool) error {
	disk := target.Disk
	if _, err := fmt.Fprintf(terminal.Out, "everything on this device will be erased:\n\n%s\n", disk.Describe()); err != nil {
		return fmt.Errorf("show the device: %w", err)
	}
	if yes {
		if !disk.Stick() {
			return &Unconfirmed{
				"--yes is for removable USB devices only, and " + disk.Path + " is none",
				"leave --yes out and type the host's name",
			}
		}
		return nil
	}
	if !terminal.Interactive {
		return &Unconfirmed{
			"nobody can be asked: the input is not a terminal",
			"for scripts: --yes, with removable USB devices only",
		}
	}
	if _, err := fmt.Fprintf(terminal.Out, "type the host's name, %s, to erase %s and write the stick: ", host, disk.Path); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := readLine(ctx, terminal.In)
	if ctx.Err() != nil {
		fmt.Fprintln(terminal.Out) // the question is an open line
		return &Failure{Kind: Cancelled, Device: disk.Path, Offset: -1, Err: context.Cause(ctx)}
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer != host {
		return &Unconfirmed{
			fmt.Sprintf("the answer was %q and not %q: nothing was written", answer, host),
			"start again and type the host's name",
		}
	}
	return nil
}

// readLine reads one line; the end of the input is an empty one. It does not
// keep an interrupted program waiting for a key.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- result{strings.TrimSpace(line), err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Describe shows a disk to a person, in several lines.
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

// ContentLines says what is on the disk, one line each; at least one.
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
