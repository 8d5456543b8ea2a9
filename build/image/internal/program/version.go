package program

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Version says from which source a program was compiled.
type Version struct {
	// Git is the version in the form that Kubernetes components report, such
	// as "v0.1.0" or "v0.1.0-4-gabc1234".
	Git string
	// Commit is the full hash of the commit, empty outside a repository.
	Commit string
	// TreeState is "clean" or "dirty", empty outside a repository.
	TreeState string
	// Date is the date of the commit in RFC 3339 and UTC, so that compiling the same
	// commit twice makes the same file.
	Date string
}

// untagged is the version before the first tag.
const untagged = "v0.0.0"

// VersionOf reads the version from the git repository that holds dir. Without
// one, or without git, the version is that of an unknown source.
func VersionOf(ctx context.Context, dir string) Version {
	commit, err := git(ctx, dir, "rev-parse", "HEAD")
	if err != nil {
		return Version{Git: untagged + "-unknown"}
	}
	v := Version{Commit: commit, TreeState: "clean"}
	if changes, err := git(ctx, dir, "status", "--porcelain"); err != nil || changes != "" {
		v.TreeState = "dirty"
	}
	v.Date = commitDate(ctx, dir)
	v.Git, err = git(ctx, dir, "describe", "--tags", "--match", "v[0-9]*", "HEAD")
	if err != nil {
		v.Git = untagged + "-g" + commit[:min(len(commit), 12)]
	}
	if v.TreeState == "dirty" {
		v.Git += "-dirty"
	}
	return v
}

// Variables returns the version as the link-time variables of
// k8s.io/component-base/version, where Kubernetes components keep it.
func (v Version) Variables() map[string]string {
	const pkg = "k8s.io/component-base/version."
	major, rest, _ := strings.Cut(strings.TrimPrefix(v.Git, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return map[string]string{
		pkg + "gitVersion":   v.Git,
		pkg + "gitCommit":    v.Commit,
		pkg + "gitTreeState": v.TreeState,
		pkg + "buildDate":    v.Date,
		pkg + "gitMajor":     major,
		pkg + "gitMinor":     minor,
	}
}

// ModuleVersion returns the version of a module on which the module in dir
// depends.
func ModuleVersion(ctx context.Context, dir, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", module)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("asking for the version of module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// commitDate returns "" if git does not tell.
func commitDate(ctx context.Context, dir string) string {
	seconds, err := git(ctx, dir, "show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return ""
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return ""
	}
	return time.Unix(n, 0).UTC().Format(time.RFC3339)
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

func sortedKeys(m map[string]string) []string {
	return slices.Sorted(maps.Keys(m))
}
