// Command cluster runs a real one-node Kubernetes cluster that is built from Go
// modules, for tests and demos. It needs Linux, root and Go, and no Docker.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
