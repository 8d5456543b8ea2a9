//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// At fails if the environment says so: FAULTPOINT=<step>=error returns an
// error, FAULTPOINT=<step>=kill ends the process as kill -9 does. With
// FAULTPOINT_ONCE=<file> that happens only while the file exists, and removes
// it.
func At(step Step) error {
	want, how, _ := strings.Cut(os.Getenv("FAULTPOINT"), "=")
	if Step(want) != step {
		return nil
	}
	if once := os.Getenv("FAULTPOINT_ONCE"); once != "" {
		if err := os.Remove(once); err != nil {
			return nil
		}
	}
	if how == "kill" {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return fmt.Errorf("faultpoint %s: %w", step, err)
		}
		select {} // the signal is on its way
	}
	return fmt.Errorf("faultpoint %s: injected error", step)
}
