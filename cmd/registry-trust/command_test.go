package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	for name, test := range map[string]struct {
		args []string
		say  []string
	}{
		"no node":         {nil, []string{"--node-name", "NODE_NAME"}},
		"several":         {[]string{"--config-dir=x", "--containerd-config=y", "--interval=0s", "--retry=1ms"}, []string{`--config-dir "x"`, `--containerd-config "y"`, "--interval 0s", "--retry 1ms", "--node-name"}},
		"unknown flag":    {[]string{"--restart"}, []string{"--restart"}},
		"unknown command": {[]string{"delete"}, []string{"delete"}},
		"no cluster":      {[]string{"--node-name=n", "--kubeconfig=/no/such/file"}, []string{`--kubeconfig "/no/such/file"`}},
		"uninstall":       {[]string{"uninstall", "--namespace=", "--daemonset=", "--timeout=0s"}, []string{"--namespace is empty", "--daemonset is empty", "--timeout 0s"}},
		"remove":          {[]string{"remove", "--interval=1s"}, []string{"--interval"}},
	} {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			command.SetOut(t.Output())
			command.SetErr(t.Output())
			command.SetArgs(test.args)
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

func TestRemoveRemovesWhatWasWrittenAndNothingElse(t *testing.T) {
	certs := t.TempDir()
	other := filepath.Join(certs, "other.example.com")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := (registrytrust.Store{Dir: certs}).Put("harbor.example.com", []byte("x")); err != nil {
		t.Fatal(err)
	}
	// Removing what is gone is fine: a pod may be started twice.
	for range 2 {
		if err := remove(t.Context(), &options{certsDir: certs}); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(certs)
	if err != nil || len(left) != 1 || left[0].Name() != "other.example.com" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRemoveWithoutTheHostsFolderFails(t *testing.T) {
	err := remove(t.Context(), &options{certsDir: filepath.Join(t.TempDir(), "missing")})
	if err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("error %v", err)
	}
}
