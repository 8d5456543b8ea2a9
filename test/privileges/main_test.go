package privileges

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// world is what all tests share. TestMain sets it before the first of them.
var world *scene //nolint:gochecknoglobals // the only way from TestMain to the tests

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("SKIP: tests of privileges need a cluster, which -short leaves out")
		return
	}
	if os.Getenv("E2E_KUBECONFIG") != "" {
		fmt.Println("SKIP: tests of privileges read the audit log of a cluster of their own: unset E2E_KUBECONFIG")
		return
	}
	if err := harness.Check(); err != nil {
		fmt.Println("SKIP:", err)
		return
	}
	os.Exit(run(m))
}

// run brings the cluster up, runs all tests, and takes it down again, also
// after an interrupt.
func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := cmp.Or(os.Getenv("E2E_CLUSTER"), "privileges")
	unlock, err := harness.Lock(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	defer func() { _ = unlock() }() // the end of this process unlocks, too
	started, err := start(ctx, name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	world = &scene{Cluster: started, log: &auditLog{cluster: started}}
	ended := make(chan int, 1)
	go func() { ended <- runTests(ctx, m) }()
	code := 1
	select {
	case code = <-ended:
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "interrupted")
	}
	if os.Getenv("E2E_KEEP") != "" {
		fmt.Fprint(os.Stderr, started.HowToUse())
		return code
	}
	if code == 0 {
		err = started.Stop(ctx)
	} else {
		logs := filepath.Join(started.Root, "bin", "privileges-logs")
		fmt.Fprintln(os.Stderr, "The logs of the cluster's programs are kept in", logs)
		err = started.StopKeepingLogs(ctx, logs)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	return code
}

// start brings up a cluster that audits.
func start(ctx context.Context, name string) (*harness.Cluster, error) {
	policy, err := filepath.Abs("testdata/audit-policy.yaml")
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("E2E_AUDIT_POLICY", policy); err != nil {
		return nil, err
	}
	c, err := harness.Start(ctx, name, harness.Steps{Out: os.Stderr})
	if err != nil {
		return nil, err
	}
	// Those that watch ask for lists only if the API server does not stream them,
	// as may be configured.
	return c, c.RestartWith(ctx, harness.APIServer, "WatchList=false")
}

func runTests(ctx context.Context, m *testing.M) int {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	// What was asked on a cluster that is up already is of no interest.
	_, err := world.log.news(ctx)
	if err == nil {
		err = world.Steps.Do("Installing the chart", func() error { return world.install(ctx, everything) })
	}
	if err == nil {
		err = world.prepare(ctx)
	}
	if err == nil {
		world.rights, err = granted(ctx, world)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		world.Report(ctx, os.Stderr)
		return 1
	}
	return m.Run()
}
