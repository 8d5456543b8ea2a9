package harness

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Starter brings a cluster of a name up.
type Starter func(ctx context.Context, name string) (*Cluster, error)

// Plain starts a cluster as it is by default.
func Plain(ctx context.Context, name string) (*Cluster, error) {
	return Start(ctx, name, Steps{Out: os.Stderr})
}

// Run brings up a cluster for a package of tests, has them run, and takes it down
// again, also after an interrupt; what it returns is for os.Exit. E2E_CLUSTER names
// another cluster than the package's own, and with E2E_KEEP it stays. If tests
// fail, the logs of its programs are kept in a folder of the package's name.
func Run(name string, start Starter, tests func(context.Context, *Cluster) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, name, start, tests)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	return code
}

func run(ctx context.Context, name string, start Starter, tests func(context.Context, *Cluster) int) (int, error) {
	clusterName := cmp.Or(os.Getenv("E2E_CLUSTER"), name)
	unlock, err := Lock(clusterName)
	if err != nil {
		return 1, err
	}
	defer func() { _ = unlock() }() // the end of this process unlocks, too
	started, err := start(ctx, clusterName)
	if err != nil {
		return 1, err
	}
	ended := make(chan int, 1)
	go func() { ended <- tests(ctx, started) }()
	code := 1
	select {
	case code = <-ended:
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "interrupted")
	}
	if os.Getenv("E2E_KEEP") != "" {
		fmt.Fprint(os.Stderr, started.HowToUse())
		return code, nil
	}
	if code == 0 {
		return code, started.Stop(ctx)
	}
	logs := filepath.Join(started.Root, "bin", name+"-logs")
	fmt.Fprintln(os.Stderr, "The logs of the cluster's programs are kept in", logs)
	return code, started.StopKeepingLogs(ctx, logs)
}
