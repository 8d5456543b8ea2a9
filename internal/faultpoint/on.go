//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// At fails if the environment says so: FAULTPOINT=<step>=error returns an
// error, FAULTPOINT=<step>=kill ends the process as kill -9 does. Several are
// separated by commas. With FAULTPOINT_ONCE=<folder> a step fails only while
// the folder has a file of its name, and removes that file.
func At(step Step) error {
	for fault := range strings.SplitSeq(os.Getenv("FAULTPOINT"), ",") {
		want, how, _ := strings.Cut(fault, "=")
		if Step(want) == step {
			return fail(step, how)
		}
	}
	return nil
}

func fail(step Step, how string) error {
	if once := os.Getenv("FAULTPOINT_ONCE"); once != "" {
		if err := os.Remove(filepath.Join(once, string(step))); err != nil {
			return nil //nolint:nilerr // it has failed already
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
