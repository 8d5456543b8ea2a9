package chart

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

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// cluster is what all tests share. TestMain sets it before the first of them.
var cluster *harness.Cluster //nolint:gochecknoglobals // the only way from TestMain to the tests

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("SKIP: the tests of the chart's life need a cluster, which -short leaves out")
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
	steps := harness.Steps{Out: os.Stderr}
	name := cmp.Or(os.Getenv("E2E_CLUSTER"), "chart")
	unlock, err := harness.Lock(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	defer func() { _ = unlock() }() // the end of this process unlocks, too
	started, err := harness.Start(ctx, name, steps)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	cluster = started
	ended := make(chan int, 1)
	go func() { ended <- m.Run() }()
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
		logs := filepath.Join(started.Root, "bin", "chart-logs")
		fmt.Fprintln(os.Stderr, "The logs of the cluster's programs are kept in", logs)
		err = started.StopKeepingLogs(ctx, logs)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	return code
}
