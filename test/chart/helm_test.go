package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for one thing.
	patience = 2 * time.Minute
	// source is the chart, as the documents name it.
	source = "deployments/helm/eks-hybrid-dra"
	image  = "localhost/eks-hybrid-dra"
	// tag and other are of the same image: what counts is that pods are replaced.
	tag, other = "dev", "other-release"
)

// site is a test on the cluster.
type site struct {
	t   *testing.T
	ctx context.Context
	// helmEnv keeps helm from what the user has set up for it.
	helmEnv []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	// What fails is looked at, and cleaned up, after the test has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &site{t: t, ctx: ctx, helmEnv: []string{"KUBECONFIG=" + cluster.Kubeconfig}}
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		s.helmEnv = append(s.helmEnv, name+"="+t.TempDir())
	}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			var report bytes.Buffer
			cluster.Report(ctx, &report)
			t.Log(report.String())
		}
	})
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// helm runs helm in the repository's root and returns all that it prints.
func (s *site) helm(args ...string) (string, error) {
	s.t.Helper()
	program := os.Getenv("HELM_BIN")
	if program == "" {
		program = filepath.Join(cluster.Root, "bin", "helm")
	}
	ctx, cancel := context.WithTimeout(s.ctx, 3*patience)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	command.Dir, command.Env = cluster.Root, append(os.Environ(), s.helmEnv...)
	// Interrupted, helm would leave a release half-way.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	started := time.Now()
	out, err := command.CombinedOutput()
	s.t.Logf("helm %s: %.1f s", strings.Join(args, " "), time.Since(started).Seconds())
	if err != nil {
		return string(out), fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (s *site) mustHelm(args ...string) string {
	s.t.Helper()
	out, err := s.helm(args...)
	s.must(err)
	return out
}

// documented returns the first command of helm with this verb in a document, as
// arguments, for the image that this cluster has.
func (s *site) documented(document, verb string) []string {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(cluster.Root, document))
	s.must(err)
	found := regexp.MustCompile(`(?m)^\$ helm ` + verb + `(?: .*\\\n)*.*$`).FindString(string(content))
	if found == "" {
		s.t.Fatalf("%s has no line that begins with %q", document, "$ helm "+verb)
	}
	words := strings.Fields(strings.ReplaceAll(strings.TrimPrefix(found, "$ helm "), "\\\n", " "))
	var args []string
	for _, word := range words {
		if strings.HasPrefix(word, "#") { // the rest is a remark
			break
		}
		word = regexp.MustCompile(`^image\.repository=.*`).ReplaceAllString(word, "image.repository="+image)
		word = regexp.MustCompile(`^image\.tag=.*`).ReplaceAllString(word, "image.tag="+map[bool]string{true: tag, false: other}[verb == "install"])
		args = append(args, word)
	}
	return args
}

// kubectl runs kubectl and returns what it prints.
func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	out, err := cluster.Kubectl(s.ctx, args...)
	s.must(err)
	return out
}

// patient returns a context for waiting for one thing.
func (s *site) patient() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	s.t.Cleanup(cancel)
	return ctx
}

// until waits until check returns nil.
func (s *site) until(what string, check func() error) {
	s.t.Helper()
	end := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("never %s: %v", what, err)
		}
		select {
		case <-s.ctx.Done():
			s.t.Fatal(s.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
