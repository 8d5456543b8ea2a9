package noclaims

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
	if os.Getenv("E2E_KUBERNETES_VERSION") == "" || testing.Short() {
		fmt.Println("SKIP: these tests need a cluster of a Kubernetes before 1.34, which make test-versions starts")
		return
	}
	if err := harness.Check(); err != nil {
		fmt.Println("SKIP:", err)
		return
	}
	os.Exit(harness.Run("noclaims", harness.Plain, func(_ context.Context, started *harness.Cluster) int {
		cluster = started
		return m.Run()
	}))
}
