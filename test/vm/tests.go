package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/machine"
)

// test is `go test` whose test programs run in a guest.
func test(name *string) *cobra.Command {
	var o machine.Options
	cmd := &cobra.Command{
		Use:   "test [--] <arguments of go test>...",
		Short: "Run Go tests with the build tag guest in a guest of their own",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name, o.Out, o.Modules = *name, os.Stdout, testModules()
			if !cmd.Flags().Changed("name") {
				// Runs of several people must not meet.
				o.Name = fmt.Sprintf("test-%d", os.Getpid())
			}
			return runTests(cmd.Context(), o, args)
		},
	}
	lifetimeFlag(cmd, &o.Lifetime)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// testModules are loaded for tests, which may ask for more by modprobe.
func testModules() []string {
	return []string{"vfio-pci", "vfio_iommu_type1", "8021q", "veth", "bridge", "ib_core", "ib_uverbs", "rdma_ucm", "ib_umad", "rdma_rxe"}
}

func runTests(ctx context.Context, o machine.Options, args []string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	m, err := machine.Up(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Down(ctx)) }()
	run := append([]string{"test", "-tags=guest", "-count=1", "-p=1",
		"-exec=" + self + " --name=" + o.Name + " test-binary --"}, args...)
	cmd := exec.CommandContext(ctx, "go", run...)
	// Without C the test programs need no libraries in the guest.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tests in the guest: %w", err)
	}
	return nil
}

// testBinary is how `go test` runs a test program in the guest. Its working
// folder here is the package's, whose testdata goes along.
func testBinary(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "test-binary -- <program> <arguments>...",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machine.Find(*name)
			if err != nil {
				return err
			}
			return runBinary(cmd.Context(), m, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func runBinary(ctx context.Context, m *machine.Machine, args []string) (err error) {
	dir, err := os.MkdirTemp(m.Share(), "test-")
	if err != nil {
		return fmt.Errorf("make a folder for the test: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, filepath.Base(args[0]))
	content, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read the test program: %w", err)
	}
	if err := os.WriteFile(program, content, 0o755); err != nil {
		return fmt.Errorf("give the guest the test program: %w", err)
	}
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("testdata")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give the guest the test's data: %w", err)
	}
	run := machine.Command{Args: append([]string{m.Guest(program)}, args[1:]...), Dir: m.Guest(dir)}
	err = m.Run(ctx, run, os.Stdout, os.Stderr)
	var exit *machine.ExitError
	if err != nil && !errors.As(err, &exit) {
		// It hung or broke: what the kernel said last may tell why.
		return fmt.Errorf("%w\nThe guest's console ends with:\n%s", err, m.Console())
	}
	return err
}
