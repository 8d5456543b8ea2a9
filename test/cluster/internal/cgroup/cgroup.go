package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// needed are the controllers that kubelet does not start without.
func needed() []string { return []string{"cpu", "cpuset", "memory", "pids"} }

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	Dir         string
	Controllers []string
	V2          bool
}

// Hierarchies lists the machine's cgroup trees.
func Hierarchies() ([]Hierarchy, error) { return hierarchies("/proc/self/mountinfo") }

// hierarchies lists the cgroup trees of a mount table.
func hierarchies(mountinfo string) ([]Hierarchy, error) {
	content, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	all := parse(string(content))
	for i, h := range all {
		if h.V2 {
			controllers, err := os.ReadFile(filepath.Join(h.Dir, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("read the controllers of cgroup v2: %w", err)
			}
			all[i].Controllers = strings.Fields(string(controllers))
		}
	}
	return all, nil
}

// parse reads a mountinfo table (proc_pid_mountinfo(5)).
func parse(mountinfo string) []Hierarchy {
	var all []Hierarchy
	seen := map[string]bool{}
	for _, line := range strings.Split(mountinfo, "\n") {
		head, tail, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 5 || len(kind) < 3 || seen[fields[4]] {
			continue
		}
		h := Hierarchy{Dir: fields[4]}
		switch kind[0] {
		case "cgroup":
			h.Controllers = strings.Split(kind[2], ",")
		case "cgroup2":
			h.V2 = true
		default:
			continue
		}
		seen[h.Dir] = true
		all = append(all, h)
	}
	return all
}

// Check names a controller that is missing.
func Check() error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	return check(all)
}

func check(all []Hierarchy) error {
	have := map[string]bool{}
	for _, h := range all {
		for _, c := range h.Controllers {
			have[c] = true
		}
	}
	var missing []string
	for _, c := range needed() {
		if !have[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the cgroup controllers %s are not there: mount cgroups at /sys/fs/cgroup, or start the container that this runs in with --cgroupns=host", strings.Join(missing, ", "))
	}
	return nil
}

// Create makes the cgroup in every hierarchy.
func Create(name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.Dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		if h.V2 {
			if err := delegate(h, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate hands the controllers down to the children of the cgroup. Those that
// kubelet can do without may stay behind.
func delegate(h Hierarchy, dir string) error {
	for _, d := range []string{h.Dir, dir} {
		for _, controller := range h.Controllers {
			err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
			if err != nil && slices.Contains(needed(), controller) {
				return fmt.Errorf("hand the cgroup controller %s down (a container must be started with --cgroupns=host): %w", controller, err)
			}
		}
	}
	return nil
}

// removeTimeout is how long the kernel may take to notice that the processes of
// a cgroup have ended.
const removeTimeout = 20 * time.Second

// Remove removes the cgroup and all below it from every hierarchy. Its
// processes must have been ended.
func Remove(ctx context.Context, name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for _, h := range all {
		dir := filepath.Join(h.Dir, name)
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("remove the cgroup %s (does a process live in it?): %w", dir, err), ctx.Err())
			}
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it, deepest first.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
