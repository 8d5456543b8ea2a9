package page

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Replace puts text between the marker lines of a section of a document.
func Replace(path, section, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("rewrite a section: %w", err)
	}
	begin, end := "<!-- bench "+section+": begin -->\n", "<!-- bench "+section+": end -->\n"
	head, rest, found := strings.Cut(string(old), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("rewrite section %q of %s: it lacks one of the lines %q and %q", section, path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	changed := head + begin + "\n" + strings.TrimSpace(text) + "\n\n" + end + tail
	if bytes.Equal(old, []byte(changed)) {
		return nil
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("rewrite section %q of %s: %w", section, path, err)
	}
	return nil
}
