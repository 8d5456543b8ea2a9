package prepare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
)

// stubborn is a command of the workload image that reads from an input that
// says nothing, and meanwhile does not care for SIGTERM.
const stubborn = "cat"

// forceDeletes gives a GPU to a pod, force-deletes that pod while its container
// ignores the signal to end, and starts another pod that needs the same GPU.
func (s *Suite) forceDeletes(ctx context.Context) error {
	for round := range s.Size.ForceDeletes {
		took, err := s.forceDelete(ctx, round)
		if errors.Is(err, errNoProcess) {
			s.report.Notes = append(s.report.Notes, forceDelete+" was not measured: "+err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		s.report.Keep(forceDelete, figures.Ours, figures.Samples{figures.Milliseconds(took)})
	}
	return nil
}

func (s *Suite) forceDelete(ctx context.Context, round int) (time.Duration, error) {
	client := s.Cluster.Client.CoreV1().Pods(podNamespace)
	old := s.runner().New(fmt.Sprintf("old-%d", round), firstGPU, stubborn, "/dev/stdin")
	old.Spec.Containers[0].Stdin = true
	old.Spec.TerminationGracePeriodSeconds = ptr.To(int64(s.Size.Stubborn / time.Second))
	if _, err := s.runner().Start(ctx, old); err != nil {
		return 0, err
	}
	created, err := client.Get(ctx, old.Name, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("get pod %s: %w", old.Name, err)
	}
	container, err := findContainer(created.UID)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	var end time.Time
	go func() {
		err := container.wait(ctx)
		end = time.Now()
		ended <- err
	}()
	if err := client.Delete(ctx, old.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		return 0, errors.Join(fmt.Errorf("force-delete pod %s: %w", old.Name, err), container.close())
	}
	next := s.runner().New(fmt.Sprintf("next-%d", round), firstGPU, "sleep", "infinity")
	times, startErr := s.runner().Start(ctx, next)
	if err := errors.Join(startErr, <-ended, container.close()); err != nil {
		return 0, err
	}
	took := times.Running.Sub(end)
	if took <= 0 {
		return 0, fmt.Errorf("pod %s ran %s before the container of %s had ended: both had the same GPU", next.Name, -took, old.Name)
	}
	return took, s.runner().Delete(ctx, next.Name)
}

// errNoProcess says that a pod's processes are not among those of this machine.
var errNoProcess = errors.New("the processes of the cluster's pods cannot be seen from here")

// process is the first process of a container.
type process struct{ fd int }

// findContainer finds the process of the stubborn container of a pod.
func findContainer(pod types.UID) (*process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	for _, dir := range dirs {
		// Processes may end while they are looked at.
		cgroups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !belongsTo(string(cgroups), pod) {
			continue
		}
		arguments, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !bytes.HasPrefix(arguments, []byte(stubborn+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil, fmt.Errorf("watch process %d: %w", pid, err)
		}
		return &process{fd: fd}, nil
	}
	return nil, errNoProcess
}

// belongsTo tells whether a process with these cgroups is a pod's. The systemd
// driver of cgroups writes a UID with underscores.
func belongsTo(cgroups string, pod types.UID) bool {
	return strings.Contains(cgroups, "pod"+string(pod)) || strings.Contains(cgroups, "pod"+strings.ReplaceAll(string(pod), "-", "_"))
}

// wait returns when the process has ended.
func (p *process) wait(ctx context.Context) error {
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int((100 * time.Millisecond).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for a process: %w", err)
		case n > 0:
			return nil
		}
	}
	return context.Cause(ctx)
}

func (p *process) close() error { return unix.Close(p.fd) }
