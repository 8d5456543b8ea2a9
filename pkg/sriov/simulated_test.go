// The simulated machine needs C, which tests in the guest are built without.

//go:build !guest

package sriov

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nickernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// newNetns returns the path of a network namespace that ends with the test.
func newNetns(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		file, err := unshared()
		done <- result{file, err}
	}()
	made := <-done
	if made.err != nil {
		t.Fatal(made.err)
	}
	t.Cleanup(func() { _ = made.file.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", made.file.Fd())
}

// unshared makes a network namespace. The thread goes back to its own one, for
// the first thread of a program never ends and would keep the new one.
func unshared() (*os.File, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err := errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)); err != nil {
		return nil, err
	}
	runtime.UnlockOSThread()
	return file, nil
}

// The simulated machine is a healthy one, whose interfaces are in a real
// network namespace.
func TestSimulatedMachine(t *testing.T) {
	for _, ethernet := range []bool{false, true} {
		t.Run(fmt.Sprintf("ethernet %v", ethernet), func(t *testing.T) {
			netns := newNetns(t)
			host, err := kernel.New(netns)
			if err != nil {
				t.Fatal(err)
			}
			machine := simulated.New(simulated.DGXH200, "node")
			machine.Ethernet = ethernet
			root := t.TempDir()
			if err := machine.WriteSysfs(root); err != nil {
				t.Fatal(err)
			}
			nics, err := nickernel.New(t.Context(), nickernel.Options{Real: host, HostNetns: netns, NICs: machine.NICs(), Dir: t.TempDir(), BootID: "boot-1"})
			if err != nil {
				t.Fatal(err)
			}
			found := inventory(t, New(Options{SysfsRoot: root, DataDir: t.TempDir(), BootID: "boot-1", Kernel: nics}))
			if len(found.Devices) != 64 || len(found.Faults) > 0 {
				t.Errorf("got %d devices and faults %v, want 64 and none", len(found.Devices), found.Faults)
			}
			for _, d := range found.Devices {
				if len(d.Problems) > 0 {
					t.Errorf("%s has problems %+v", d.Name, d.Problems)
				}
			}
			t.Logf("attributes: %v", plain(found.Devices[0]))
		})
	}
}
