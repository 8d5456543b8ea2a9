// Command controller is the cluster's part of the driver: it allocates the
// claims of managed classes, checks claims and pods when they are made, and
// tells why a claim waits.
package main

import (
	"os"

	"k8s.io/component-base/cli"
)

func main() {
	os.Exit(cli.Run(newCommand()))
}
