package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/packages"
)

// Accelerators: kvm runs the guest on the processor, tcg emulates it.
const (
	kvm = "kvm"
	tcg = "tcg,thread=multi"
)

// kvmPatience is how long a guest on kvm may take to its first words; it takes
// about two seconds where kvm works at all.
const kvmPatience = 12 * time.Second

// Accelerator finds out whether kvm works here, by a try: there are machines
// that have it and on which no ordinary kernel boots. The answer is kept in dir
// until the machine reboots.
func Accelerator(ctx context.Context, dir string, tree packages.Tree, m Machine) (string, error) {
	if !hasKVM() {
		return tcg, nil
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the machine's boot id: %w", err)
	}
	path, err := cache.Ensure(dir, "accelerator-"+cache.Key(tree.Key, string(bootID)), func(partial string) error {
		name := tcg
		if tryKVM(ctx, partial, tree, m) {
			name = kvm
		}
		return os.WriteFile(filepath.Join(partial, "name"), []byte(name), 0o644)
	})
	if err != nil {
		return "", fmt.Errorf("find out whether kvm works: %w", err)
	}
	name, err := os.ReadFile(filepath.Join(path, "name"))
	if err != nil {
		return "", fmt.Errorf("read whether kvm works: %w", err)
	}
	return string(name), nil
}

func hasKVM() bool { return unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil }

// tryKVM boots the guest on kvm as far as init's first words.
func tryKVM(ctx context.Context, dir string, tree packages.Tree, m Machine) bool {
	ctx, cancel := context.WithTimeout(ctx, kvmPatience)
	defer cancel()
	m.Console, m.Share, m.Disk, m.Forwards = filepath.Join(dir, "console.log"), dir, "", nil
	m.Settings = map[string]string{boot.EnvProbe: "1"}
	// It turns itself off when it came up, and is killed when it did not.
	if err := Command(ctx, tree, kvm, m).Run(); err != nil {
		return false
	}
	said, err := os.ReadFile(m.Console)
	return err == nil && strings.Contains(string(said), boot.MarkInit)
}

// Command is the machine as a program that has not been started.
func Command(ctx context.Context, tree packages.Tree, accelerator string, m Machine) *exec.Cmd {
	args := []string{"-accel", accelerator}
	for _, folder := range []string{"usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"} {
		args = append(args, "-L", filepath.Join(tree.Dir, folder))
	}
	cmd := tree.Command(ctx, "usr/bin/qemu-system-x86_64", append(args, m.Arguments()...)...)
	cmd.Env = append(cmd.Env, "QEMU_MODULE_DIR="+filepath.Join(tree.Dir, "usr/lib/x86_64-linux-gnu/qemu"))
	return cmd
}
