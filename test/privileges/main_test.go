package privileges

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	os.Exit(harness.Run("privileges", start, func(ctx context.Context, started *harness.Cluster) int {
		world = &scene{Cluster: started, log: &auditLog{cluster: started}}
		return runTests(ctx, m)
	}))
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
