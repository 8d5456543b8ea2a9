package parts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CacheEnv is the environment variable that names the cache folder.
const CacheEnv = "EKS_HYBRID_DRA_CACHE"

// DefaultCache is the cache folder when the user names none.
func DefaultCache() string {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "eks-hybrid-dra")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".cache", "eks-hybrid-dra")
	}
	return "/var/cache/eks-hybrid-dra"
}

// FindSource looks for the folder with parts/ in the given folders and every
// folder above them.
func FindSource(starts ...string) (string, error) {
	for _, start := range starts {
		abs, err := filepath.Abs(start)
		if err != nil {
			return "", fmt.Errorf("find the folder %q: %w", start, err)
		}
		for dir := abs; ; dir = filepath.Dir(dir) {
			for _, candidate := range []string{dir, filepath.Join(dir, "test", "cluster")} {
				_, goMod := os.Stat(filepath.Join(candidate, "parts", "kubernetes", "go.mod"))
				_, pause := os.Stat(filepath.Join(candidate, "pause", "main.go"))
				if errors.Join(goMod, pause) == nil {
					return candidate, nil
				}
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", fmt.Errorf("the sources of the cluster's parts (test/cluster/parts) are not in %q or above: run this in a clone of the repository, or give --source", starts)
}
