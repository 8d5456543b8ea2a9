package chart

import (
	"context"
	"flag"
	"fmt"
	"os"
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
	os.Exit(harness.Run("chart", harness.Plain, func(_ context.Context, started *harness.Cluster) int {
		cluster = started
		return m.Run()
	}))
}
