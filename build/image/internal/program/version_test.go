package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestVersionOf(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		// Independent of who runs the test, and always the same date.
		cmd.Env = append(os.Environ(),
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=2026-01-02T03:04:05+00:00",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE=2026-01-02T03:04:05+00:00")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	check := func(when string, want Version) {
		t.Helper()
		got := VersionOf(t.Context(), dir)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Version{}, "Commit")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}

	check("outside a repository", Version{Git: "v0.0.0-unknown"})

	const date = "2026-01-02T03:04:05Z"
	run("init", "--quiet")
	run("commit", "--quiet", "--allow-empty", "--message", "first")
	untagged := "v0.0.0-g" + VersionOf(t.Context(), dir).Commit[:12]
	check("without a tag", Version{Git: untagged, TreeState: "clean", Date: date})

	run("tag", "v1.2.3")
	check("at a tag", Version{Git: "v1.2.3", TreeState: "clean", Date: date})

	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	check("with a new file", Version{Git: "v1.2.3-dirty", TreeState: "dirty", Date: date})
}

func TestVariables(t *testing.T) {
	got := Version{Git: "v1.22.3-dirty", Commit: "abc", TreeState: "dirty", Date: "2026-01-02T03:04:05Z"}.Variables()
	want := map[string]string{
		"k8s.io/component-base/version.gitVersion":   "v1.22.3-dirty",
		"k8s.io/component-base/version.gitCommit":    "abc",
		"k8s.io/component-base/version.gitTreeState": "dirty",
		"k8s.io/component-base/version.buildDate":    "2026-01-02T03:04:05Z",
		"k8s.io/component-base/version.gitMajor":     "1",
		"k8s.io/component-base/version.gitMinor":     "22",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
}
