package main

import (
	"bytes"
	"strings"
	"testing"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	for name, test := range map[string]struct {
		args []string
		say  []string
	}{
		"no node":          {nil, []string{"--node-name", "NODE_NAME"}},
		"several":          {[]string{"--driver-name=Not_A_Domain", "--cdi-root=cdi", "--driver-root=run/nvidia"}, []string{`--driver-name "Not_A_Domain"`, "--node-name", `--cdi-root "cdi"`, `--driver-root "run/nvidia"`}},
		"unknown flag":     {[]string{"--drivername=x"}, []string{"--drivername"}},
		"argument":         {[]string{"start"}, []string{"start"}},
		"nothing to serve": {[]string{"--node-name=n", "--enable-gpu=false"}, []string{"--enable-gpu", "--enable-sriov"}},
		"SR-IOV":           {[]string{"--node-name=n", "--enable-sriov", "--cni-bin-dir=bin", "--node-addresses=10.0.0.1,here", "--attach-wait=5ms"}, []string{`--cni-bin-dir "bin"`, `"here"`, "--attach-wait 5ms"}},
		"removal":          {[]string{"remove", "--node-name=n", "--cdi-root=cdi", "--timeout=5s"}, []string{"--timeout"}},
		"unknown machine":  {[]string{"--node-name=n", "--simulate=dgx-b200"}, []string{"--simulate", `"dgx-b200"`, "dgx-h200"}},
		"GPUs of nothing":  {[]string{"--node-name=n", "--simulate-gpus-at=0000:45:00.0", "--enable-sriov", "--enable-gpu=false"}, []string{"without --simulate", "--enable-gpu=false"}},
		"no address":       {[]string{"--node-name=n", "--simulate=dgx-h200", "--simulate-gpus-at=0000:45:00.0,45:00.0"}, []string{"--simulate-gpus-at", `"45:00.0"`}},
	} {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			var out bytes.Buffer
			command.SetOut(&out)
			command.SetErr(&out)
			command.SetArgs(append(test.args, "--kubelet-root="+t.TempDir()))
			err := command.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("started")
			}
			for _, want := range test.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	command := newCommand()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetArgs([]string{"--version"})
	if err := command.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "kubelet-plugin version v") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
