package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Builder builds parts into a cache.
type Builder struct {
	// Source is the folder that holds parts/ and pause/.
	Source string
	// Cache is the folder that holds what was built.
	Cache string
	// Out receives progress lines.
	Out io.Writer
}

// Set says where the programs of a cluster lie.
type Set struct {
	// Programs maps a program's name to its absolute path.
	Programs map[string]string
}

// Build makes sure that every part of a cluster with the given Kubernetes
// version is in the cache, and returns where the programs are.
func (b *Builder) Build(ctx context.Context, kubernetesVersion string) (*Set, error) {
	all, err := All(kubernetesVersion)
	if err != nil {
		return nil, err
	}
	set := &Set{Programs: map[string]string{}}
	var cached []string
	for _, part := range all {
		dir, built, err := b.ensure(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("build %s %s: %w", part.Name, part.Version, err)
		}
		if !built {
			cached = append(cached, part.Name+" "+part.Version)
		}
		for _, program := range append(append([]string{}, part.Programs...), part.Links...) {
			set.Programs[program] = filepath.Join(dir, program)
		}
	}
	if len(cached) > 0 {
		fmt.Fprintf(b.Out, "From the cache: %s\n", strings.Join(cached, ", "))
	}
	return set, nil
}

// ensure returns the folder with the part's programs. It builds them unless
// they are there, and says whether it did.
func (b *Builder) ensure(ctx context.Context, part Part) (dir string, built bool, err error) {
	module, err := b.module(ctx, part)
	if err != nil {
		return "", false, err
	}
	key, err := contentKey(ctx, part, module.dir)
	if err != nil {
		return "", false, err
	}
	target := filepath.Join(b.Cache, "parts", part.Name+"-"+part.Version+"-"+key)
	if complete(target, part) {
		return target, false, nil
	}
	unlock, err := lockFile(target + ".lock")
	if err != nil {
		return "", false, err
	}
	defer unlock()
	// Another builder may have built it while this one waited.
	if complete(target, part) {
		return target, false, nil
	}
	return target, true, b.build(ctx, part, module, target)
}

// build runs go build into a folder beside the target and renames it, so that a
// target that exists is complete.
func (b *Builder) build(ctx context.Context, part Part, module module, target string) (err error) {
	if part.CGO {
		if err := checkC(ctx); err != nil {
			return err
		}
	}
	partial := target + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("remove the rest of an earlier build: %w", err)
	}
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return fmt.Errorf("make the build folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	done := progress(b.Out, part.Name+" "+part.Version)
	err = goBuild(ctx, part, module, partial)
	done(err)
	if err != nil {
		return err
	}
	for _, link := range part.Links {
		if err := os.Symlink(part.Programs[0], filepath.Join(partial, link)); err != nil {
			return fmt.Errorf("name the program %s: %w", link, err)
		}
	}
	if err := os.RemoveAll(target); err != nil {
		return fmt.Errorf("remove an incomplete cache entry: %w", err)
	}
	if err := os.Rename(partial, target); err != nil {
		return fmt.Errorf("put the build into the cache: %w", err)
	}
	return nil
}

func goBuild(ctx context.Context, part Part, module module, out string) error {
	output := out + string(filepath.Separator)
	if len(part.Programs) == 1 {
		output = filepath.Join(out, part.Programs[0])
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-mod=" + module.mode,
		"-ldflags", strings.Join(part.LDFlags, " "), "-o", output}
	if len(part.Tags) > 0 {
		args = append(args, "-tags", strings.Join(part.Tags, ","))
	}
	cgo := "CGO_ENABLED=0"
	if part.CGO {
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, part.Packages...)...)
	cmd.Dir = module.dir
	cmd.Env = append(os.Environ(), cgo, "GOOS=linux", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", module.dir, err, tail(stderr.String()))
	}
	return nil
}

// checkC says which package is missing before a long build fails for it.
func checkC(ctx context.Context) error {
	for program, pkg := range map[string]string{"gcc": "gcc libc6-dev", "pkg-config": "pkg-config"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install %s", program, pkg)
		}
	}
	if err := exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run(); err != nil {
		return errors.New("libseccomp and its headers are not installed: apt-get install libseccomp-dev (Fedora: dnf install libseccomp-devel libseccomp-static glibc-static)")
	}
	return nil
}

func complete(dir string, part Part) bool {
	for _, program := range append(append([]string{}, part.Programs...), part.Links...) {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

// progress prints a line now, one every 20 s, and one with the duration when
// the function that it returns is called.
func progress(out io.Writer, what string) func(error) {
	start := time.Now()
	fmt.Fprintf(out, "%-22s building (the first build takes minutes, later ones use Go's build cache)\n", what)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(20 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(out, "%-22s still building after %s\n", what, time.Since(start).Round(time.Second))
			case <-stop:
				return
			}
		}
	}()
	return func(err error) {
		close(stop)
		<-stopped
		if err == nil {
			fmt.Fprintf(out, "%-22s built in %s\n", what, time.Since(start).Round(100*time.Millisecond))
		}
	}
}

// lockFile keeps two builders from building the same part at once.
func lockFile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of a cache entry: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	// Closing the only descriptor of the file gives up the lock.
	return func() { _ = f.Close() }, nil
}

// tail returns the last 30 lines: enough for any compiler's complaint.
func tail(s string) string {
	const lines = 30
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
