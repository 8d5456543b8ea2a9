// Command kubelet-plugin is the agent of one node: it publishes the node's
// devices and prepares them for the claims of its pods.
package main

import (
	"os"

	"k8s.io/component-base/cli"
)

func main() {
	os.Exit(cli.Run(newCommand()))
}
