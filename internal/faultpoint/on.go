//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// At fails if the environment says so: FAULTPOINT=<step>=error returns an
// error, FAULTPOINT=<step>=kill ends the process as kill -9 does. Several are
// separated by commas. With FAULTPOINT_ONCE=<folder> a step fails only while
// the folder has a file of its name, and removes that file. A number in the file
// is how often the step is passed before it fails; it counts down.
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
		file := filepath.Join(once, string(step))
		if passed(file) {
			return nil
		}
		if err := os.Remove(file); err != nil {
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

// counting keeps those apart who count down one file.
var counting sync.Mutex //nolint:gochecknoglobals // as the environment, which says what to do, is one for all

// passed tells whether a step is to be passed this time, and counts that.
func passed(file string) bool {
	counting.Lock()
	defer counting.Unlock()
	content, err := os.ReadFile(file) //nolint:gosec // the tests choose it
	if err != nil {
		return false
	}
	left, err := strconv.Atoi(string(content))
	if err != nil || left == 0 {
		return false
	}
	return os.WriteFile(file, []byte(strconv.Itoa(left-1)), 0o600) == nil
}
