package main

import (
	"fmt"
	"os"
	"time"
)

// waitFor waits until a device of the kernel is there.
func waitFor(path string) error {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%s does not appear", path)
		}
	}
}
