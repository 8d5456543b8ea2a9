package controller

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// simulated is the kustomization under test.
const simulated = "deployments/manifests/simulated-dgx-h200"

// cluster is what all tests share. TestMain sets it before the first of them.
var cluster *harness.Cluster //nolint:gochecknoglobals // the only way from TestMain to the tests

func TestMain(m *testing.M) {
	// Parallel tests wait for the cluster most of the time, however few cores
	// there are. A -parallel on the command line wins.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("SKIP: tests of the controller need a cluster, which -short leaves out")
		return
	}
	if err := harness.Check(); err != nil {
		fmt.Println("SKIP:", err)
		return
	}
	os.Exit(harness.Run("controller", harness.Plain, func(ctx context.Context, started *harness.Cluster) int {
		cluster = started
		return runTests(ctx, m)
	}))
}

func runTests(ctx context.Context, m *testing.M) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := cluster.InstallDriver(ctx, simulated); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		cluster.Report(ctx, os.Stderr)
		return 1
	}
	return m.Run()
}
