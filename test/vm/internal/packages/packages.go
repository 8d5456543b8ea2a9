package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
)

// Release is the Debian release that everything is taken from: its QEMU has a
// sound igb device, and its kernel the drivers.
const Release = "trixie"

// recipe changes when what is done with the packages changes.
const recipe = "1"

// patience is how long one download may take.
const patience = 10 * time.Minute

// Packages returns what the guest and its machine are made of.
func Packages() []string {
	return []string{
		// The machine and what prepares its disks; run here, from where they lie.
		"qemu-system-x86", "seabios", "e2fsprogs", "xz-utils",
		// The guest.
		"linux-image-amd64", "busybox-static", "dash", "kmod", "pciutils", "ethtool", "iproute2", "iputils-ping",
		"mount", "util-linux", "nftables",
		// It has ldconfig, which NVIDIA's CDI hook borrows from the host.
		"libc-bin",
		// The links /bin, /lib and so on of a merged /usr.
		"base-files",
	}
}

// Tree is a folder with all packages unpacked.
type Tree struct {
	// Dir is the root folder: Dir/usr/bin and so on.
	Dir string
	// Key stands for the packages' versions.
	Key string
}

// Ensure downloads and unpacks the packages, unless the cache in dir has them.
func Ensure(ctx context.Context, dir string, out io.Writer) (Tree, error) {
	key := cache.Key(append([]string{recipe, Release}, Packages()...)...)
	path, err := cache.Ensure(dir, "packages-"+key, func(partial string) error {
		start := time.Now()
		fmt.Fprintf(out, "Downloading the guest's packages (Debian %s), once\n", Release)
		if err := fetch(ctx, partial); err != nil {
			return err
		}
		fmt.Fprintf(out, "Downloaded and unpacked in %.0fs\n", time.Since(start).Seconds())
		return nil
	})
	if err != nil {
		return Tree{}, err
	}
	versions, err := os.ReadFile(filepath.Join(path, "packages.txt"))
	if err != nil {
		return Tree{}, fmt.Errorf("read which packages the cache holds: %w", err)
	}
	return Tree{Dir: filepath.Join(path, "root"), Key: cache.Key(recipe, string(versions))}, nil
}

// fetch fills dir with root/ and packages.txt.
func fetch(ctx context.Context, dir string) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the guest's programs are for amd64, and this machine is %s", runtime.GOARCH)
	}
	for _, program := range []string{"apt-get", "apt-config", "dpkg"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the guest's packages cannot be got here: %w: use a Debian machine, or bring a warm cache", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	apt := filepath.Join(dir, "apt")
	if err := privateApt(ctx, apt); err != nil {
		return err
	}
	if err := runApt(ctx, apt, "update"); err != nil {
		return fmt.Errorf("read the lists of Debian %s: %w", Release, err)
	}
	install := append([]string{"--download-only", "--yes", "--no-install-recommends", "install"}, Packages()...)
	if err := runApt(ctx, apt, install...); err != nil {
		return fmt.Errorf("download packages of Debian %s: %w", Release, err)
	}
	if err := unpackAll(ctx, filepath.Join(apt, "cache", "archives"), dir); err != nil {
		return err
	}
	tree := Tree{Dir: filepath.Join(dir, "root")}
	kernel, err := tree.KernelVersion()
	if err != nil {
		return err
	}
	if err := tree.Run(ctx, "usr/sbin/depmod", "-b", tree.Dir, kernel); err != nil {
		return fmt.Errorf("find out which kernel module needs which: %w", err)
	}
	if err := os.RemoveAll(apt); err != nil {
		return fmt.Errorf("remove the downloads: %w", err)
	}
	return nil
}

// privateApt makes the folders of an apt that knows nothing of this machine but
// its mirrors. An empty status file makes it resolve the whole closure.
func privateApt(ctx context.Context, apt string) error {
	sources, err := Sources("/", Release)
	if err != nil {
		return err
	}
	settings, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return fmt.Errorf("ask for this machine's settings of apt: %w", err)
	}
	for _, folder := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, folder), 0o755); err != nil {
			return fmt.Errorf("make a folder for apt: %w", err)
		}
	}
	for name, content := range map[string]string{"guest.sources": sources, "status": "", "apt.conf": aptConfig(string(settings))} {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write what apt reads: %w", err)
		}
	}
	return nil
}

// aptConfig keeps, of the machine's settings as `apt-config dump` prints them,
// how to reach mirrors (proxies, for example), and nothing that would touch the
// machine, such as what is to be run after an update.
func aptConfig(dump string) string {
	config := "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n"
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "Acquire::") && !strings.HasPrefix(line, "Acquire::IndexTargets") {
			config += line
		}
	}
	return config
}

func runApt(ctx context.Context, apt string, args ...string) error {
	options := []string{
		"Dir::Etc::sourcelist=" + filepath.Join(apt, "guest.sources"), "Dir::Etc::sourceparts=/dev/null",
		"Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"Dir::State::lists=" + filepath.Join(apt, "lists"), "Dir::State::status=" + filepath.Join(apt, "status"),
		"Dir::Cache=" + filepath.Join(apt, "cache"),
		"APT::Architecture=amd64", "APT::Architectures=amd64", "APT::Sandbox::User=root", "Acquire::Languages=none",
		"Acquire::Retries=3",
	}
	var all []string
	for _, option := range options {
		all = append(all, "-o", option)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(all, args...)...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(apt, "apt.conf"), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	return run(cmd)
}

// unpackAll unpacks every archive into dir/root and lists them in
// dir/packages.txt.
func unpackAll(ctx context.Context, archives, dir string) error {
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return fmt.Errorf("list the downloads: %w", err)
	}
	root := filepath.Join(dir, "root")
	// The links that merge /bin and so on into /usr come with base-files, and
	// must be there first.
	isBase := func(deb string) bool { return strings.HasPrefix(filepath.Base(deb), "base-files_") }
	sort.SliceStable(debs, func(i, j int) bool { return isBase(debs[i]) && !isBase(debs[j]) })
	var names []string
	for _, deb := range debs {
		names = append(names, strings.TrimSuffix(filepath.Base(deb), ".deb"))
		if err := run(exec.CommandContext(ctx, "dpkg", "-x", deb, root)); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	for _, rest := range []string{"doc", "man", "locale", "info", "perl"} {
		if err := os.RemoveAll(filepath.Join(root, "usr/share", rest)); err != nil {
			return fmt.Errorf("remove documentation: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "packages.txt"), []byte(strings.Join(names, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("list the packages: %w", err)
	}
	return nil
}

// Command runs a program of the tree on this machine, with the tree's own
// dynamic linker and libraries, so that it does not depend on the machine's.
func (t Tree) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	libraries := filepath.Join(t.Dir, "usr/lib/x86_64-linux-gnu")
	all := append([]string{"--library-path", libraries, "--argv0", filepath.Base(program), filepath.Join(t.Dir, program)}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(libraries, "ld-linux-x86-64.so.2"), all...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// Run runs a program of the tree, as [Tree.Command] does, to its end; what it
// prints is part of the error if it fails.
func (t Tree) Run(ctx context.Context, program string, args ...string) error {
	return run(t.Command(ctx, program, args...))
}

// KernelVersion is the version of the tree's kernel, as uname -r prints it.
func (t Tree) KernelVersion() (string, error) {
	found, err := filepath.Glob(filepath.Join(t.Dir, "boot", "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", errors.Join(fmt.Errorf("want one kernel in %s/boot, there are %d: remove the folder, to get the packages again", t.Dir, len(found)), err)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// Kernel is the path of the kernel's image.
func (t Tree) Kernel(version string) string {
	return filepath.Join(t.Dir, "boot", "vmlinuz-"+version)
}

// run runs a program whose output matters only when it fails.
func run(cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
