package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Every command of the README's way to a pod with GPUs and NICs and back, but for
// the building of the image, in its order, on a machine that is simulated.
func TestTheREADME(t *testing.T) {
	s := newSite(t)
	before := s.before(harness.Namespace)
	content, err := os.ReadFile(filepath.Join(cluster.Root, "README.md"))
	s.must(err)
	_, section, found := strings.Cut(string(content), "\n## Install\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("README.md has no section Install")
	}
	_, values, found := strings.Cut(section, "```yaml\n# dgx.yaml\n")
	values, _, ended = strings.Cut(values, "```")
	if !found || !ended {
		t.Fatal("README.md has no block dgx.yaml")
	}
	values = regexp.MustCompile(`repository: \S+`).ReplaceAllString(values, "repository: "+image)
	values = regexp.MustCompile(`tag: \S+`).ReplaceAllString(values, "tag: "+tag)
	file := filepath.Join(t.TempDir(), "dgx.yaml")
	s.must(os.WriteFile(file, []byte(values), 0o600))

	printed := map[string]string{}
	for _, command := range commands(section) {
		words := strings.Fields(command)
		switch words[0] {
		case "make":
			continue
		case "helm":
			for i, word := range words {
				if word == "dgx.yaml" {
					words[i] = file
				}
			}
			if words[1] == "install" {
				words = append(words, "--set", "simulate=dgx-h200")
			}
			printed[command] = s.mustHelm(words[1:]...)
		case "kubectl":
			printed[command] = s.kubectlFor(command, words[1:])
		default:
			t.Errorf("who runs this? %s", command)
		}
	}
	gpus := harness.GPUs(printed["kubectl logs aligned-pairs -c gpus"])
	if nics := printed["kubectl logs aligned-pairs -c nics"]; len(gpus) != 2 || !strings.Contains(nics, "net1") || !strings.Contains(nics, "net2") {
		t.Errorf("the pod has GPUs %v and NICs %s", gpus, nics)
	}
	s.wantNothingLeft(before)
}

// kubectlFor runs kubectl, and waits for what a person would look at again.
func (s *site) kubectlFor(command string, args []string) (out string) {
	s.t.Helper()
	switch args[0] {
	case "wait", "rollout":
		args = append(args, "--timeout="+patience.String())
	case "logs", "get":
		s.until("printed by "+command, func() (err error) {
			if out, err = cluster.Kubectl(s.ctx, args...); err == nil && strings.Count(out, "\n") < 2 {
				err = os.ErrNotExist
			}
			return err
		})
		return out
	}
	return s.kubectl(args...)
}

// commands are the lines of a text that a person types.
func commands(text string) []string {
	var typed []string
	for _, line := range regexp.MustCompile(`(?m)^\$ .*$`).FindAllString(text, -1) {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "$ "), " #")
		typed = append(typed, strings.TrimSpace(line))
	}
	return typed
}
