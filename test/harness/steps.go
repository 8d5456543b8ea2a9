package harness

import (
	"fmt"
	"io"
	"time"
)

// Steps tells a person what is being done and how long each step took.
type Steps struct {
	Out io.Writer
}

// Do runs one step between a line that announces it and one that says how it
// ended.
func (s Steps) Do(title string, step func() error) error {
	s.printf("==> %s\n", title)
	start := time.Now()
	err := step()
	took := time.Since(start).Seconds()
	if err != nil {
		s.printf("    failed after %.1f s\n", took)
		return fmt.Errorf("%s: %w", title, err)
	}
	s.printf("    done in %.1f s\n", took)
	return nil
}

// printf writes for a person, who can do nothing about a terminal that fails.
func (s Steps) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, format, args...)
}
