package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// KeepLogs copies the cluster's logs to a folder.
func (c *Cluster) KeepLogs(dir string) error {
	files, err := filepath.Glob(filepath.Join(c.State.Logs(), "*.log"))
	if err != nil {
		return fmt.Errorf("look for logs: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder for the logs: %w", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a log: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), content, 0o644); err != nil {
			return fmt.Errorf("keep a log: %w", err)
		}
	}
	return nil
}
