// Command registry-trust runs on each node and makes its containerd trust
// private registries.
package main

import (
	"os"

	"k8s.io/component-base/cli"
)

func main() {
	os.Exit(cli.Run(newCommand()))
}
