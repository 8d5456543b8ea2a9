package pairs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc, see proc_pid_stat(5); programs
// see the same on all machines.
const tick = 10 * time.Millisecond

var errNoScheduler = errors.New("no kube-scheduler of this cluster runs on this machine")

// findScheduler returns the folder in /proc of the kube-scheduler of the cluster
// whose admin has this kubeconfig: it works on files beside that.
func findScheduler(proc, kubeconfig string) (string, error) {
	commands, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "cmdline"))
	if err != nil {
		return "", fmt.Errorf("look for the kube-scheduler: %w", err)
	}
	for _, path := range commands {
		command, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		program, args, _ := bytes.Cut(command, []byte{0})
		if filepath.Base(string(program)) == "kube-scheduler" && bytes.Contains(args, []byte("--kubeconfig="+filepath.Dir(kubeconfig)+"/")) {
			return filepath.Dir(path), nil
		}
	}
	return "", errNoScheduler
}

// processorTime returns how much a process has used.
func processorTime(process string) (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		return 0, fmt.Errorf("look at the processor time of the kube-scheduler: %w", err)
	}
	// The name, in brackets, may have spaces. The 14th and the 15th field of all
	// are the times in user and in kernel mode.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, kernel = 14 - 3, 15 - 3
	if len(fields) <= kernel {
		return 0, fmt.Errorf("look at the processor time of the kube-scheduler: %s has %q", process, stat)
	}
	total := time.Duration(0)
	for _, field := range fields[user : kernel+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("look at the processor time of the kube-scheduler: %w", err)
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}
