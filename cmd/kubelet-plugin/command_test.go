package main

import (
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program/programtest"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	refusals := map[string]programtest.Refusal{
		"no node":          {Say: []string{"--node-name", "NODE_NAME"}},
		"several":          {Args: []string{"--driver-name=Not_A_Domain", "--cdi-root=cdi", "--driver-root=run/nvidia"}, Say: []string{`--driver-name "Not_A_Domain"`, "--node-name", `--cdi-root "cdi"`, `--driver-root "run/nvidia"`}},
		"unknown flag":     {Args: []string{"--drivername=x"}, Say: []string{"--drivername"}},
		"argument":         {Args: []string{"start"}, Say: []string{"start"}},
		"nothing to serve": {Args: []string{"--node-name=n", "--enable-gpu=false"}, Say: []string{"--enable-gpu", "--enable-sriov"}},
		"SR-IOV":           {Args: []string{"--node-name=n", "--enable-sriov", "--cni-bin-dir=bin", "--node-addresses=10.0.0.1,here", "--attach-wait=5ms"}, Say: []string{`--cni-bin-dir "bin"`, `"here"`, "--attach-wait 5ms"}},
		"removal":          {Args: []string{"remove", "--node-name=n", "--cdi-root=cdi", "--timeout=5s"}, Say: []string{"--timeout"}},
		"unknown machine":  {Args: []string{"--node-name=n", "--simulate=dgx-b200"}, Say: []string{"--simulate", `"dgx-b200"`, "dgx-h200"}},
		"GPUs of nothing":  {Args: []string{"--node-name=n", "--simulate-gpus-at=0000:45:00.0", "--enable-sriov", "--enable-gpu=false"}, Say: []string{"without --simulate", "--enable-gpu=false"}},
		"no address":       {Args: []string{"--node-name=n", "--simulate=dgx-h200", "--simulate-gpus-at=0000:45:00.0,45:00.0"}, Say: []string{"--simulate-gpus-at", `"45:00.0"`}},
	}
	// One that is not refused must not become this machine's plugin.
	for name, refusal := range refusals {
		refusal.Args = append(refusal.Args, "--kubelet-root="+t.TempDir())
		refusals[name] = refusal
	}
	programtest.Refused(t, newCommand, refusals)
}

func TestVersion(t *testing.T) {
	programtest.TellsVersion(t, newCommand())
}
