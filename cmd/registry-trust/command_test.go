package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program/programtest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	programtest.Refused(t, newCommand, map[string]programtest.Refusal{
		"no node":         {Say: []string{"--node-name", "NODE_NAME"}},
		"several":         {Args: []string{"--config-dir=x", "--containerd-config=y", "--interval=0s", "--retry=1ms"}, Say: []string{`--config-dir "x"`, `--containerd-config "y"`, "--interval 0s", "--retry 1ms", "--node-name"}},
		"unknown flag":    {Args: []string{"--restart"}, Say: []string{"--restart"}},
		"unknown command": {Args: []string{"delete"}, Say: []string{"delete"}},
		"no cluster":      {Args: []string{"--node-name=n", "--kubeconfig=/no/such/file"}, Say: []string{`--kubeconfig "/no/such/file"`}},
		"uninstall":       {Args: []string{"uninstall", "--namespace=", "--daemonset=", "--timeout=0s"}, Say: []string{"--namespace is empty", "--daemonset is empty", "--timeout 0s"}},
		"remove":          {Args: []string{"remove", "--interval=1s"}, Say: []string{"--interval"}},
	})
}

func TestVersion(t *testing.T) {
	programtest.TellsVersion(t, newCommand())
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
