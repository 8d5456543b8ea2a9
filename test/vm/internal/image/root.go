package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cpio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/packages"
)

// Base is the guest's root folder and what was made of it, in the cache.
type Base struct {
	// Kernel is the path of the kernel's image, Initramfs that of an archive of
	// the root folder, which lacks only /init.
	Kernel, Initramfs string
	root, key         string
}

// Ensure makes the base from the packages, unless the cache in dir has it.
func Ensure(ctx context.Context, dir string, tree packages.Tree) (Base, error) {
	kernel, err := tree.KernelVersion()
	if err != nil {
		return Base{}, err
	}
	key := cache.Key(recipe, tree.Key, fmt.Sprint(programs(), modules(), files(), folders(), merged()))
	path, err := cache.Ensure(dir, "base-"+key, func(partial string) error {
		root := filepath.Join(partial, "root")
		if err := makeRoot(ctx, root, tree, kernel); err != nil {
			return fmt.Errorf("make the guest's root folder: %w", err)
		}
		return writeInitramfs(filepath.Join(partial, "initramfs.cpio"), root)
	})
	if err != nil {
		return Base{}, err
	}
	return Base{
		Kernel: tree.Kernel(kernel), Initramfs: filepath.Join(path, "initramfs.cpio"),
		root: filepath.Join(path, "root"), key: key,
	}, nil
}

func makeRoot(ctx context.Context, root string, tree packages.Tree, kernel string) error {
	for _, folder := range folders() {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
	}
	for name, target := range merged() {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return fmt.Errorf("make a link: %w", err)
		}
	}
	for name, content := range files() {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write a file: %w", err)
		}
	}
	if err := copyPrograms(root, tree.Dir); err != nil {
		return err
	}
	if err := linkBusybox(ctx, root, tree.Dir); err != nil {
		return err
	}
	return copyModules(ctx, root, tree, kernel)
}

// copyPrograms copies programs and their libraries.
func copyPrograms(root, tree string) error {
	names, err := withLibraries(tree, programs())
	if err != nil {
		return err
	}
	for _, name := range append(names, "usr/bin/busybox") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	// Busybox' own shell runs its own programs in place of the full ones.
	if err := os.Symlink("dash", filepath.Join(root, "usr/bin/sh")); err != nil {
		return fmt.Errorf("link sh: %w", err)
	}
	for _, name := range []string{"modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"} {
		if err := os.Symlink("../bin/kmod", filepath.Join(root, "usr/sbin", name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}

// linkBusybox gives busybox the names of all its programs that are not there
// in their full form.
func linkBusybox(ctx context.Context, root, tree string) error {
	list, err := exec.CommandContext(ctx, filepath.Join(tree, "usr/bin/busybox"), "--list").Output()
	if err != nil {
		return fmt.Errorf("ask busybox what it can do: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		if _, err := os.Lstat(filepath.Join(root, "usr/sbin", name)); err == nil {
			continue
		}
		err := os.Symlink("busybox", filepath.Join(root, "usr/bin", name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}

func copyFile(to, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	if err := os.WriteFile(to, content, info.Mode().Perm()|0o600); err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	return nil
}

// writeInitramfs archives the root folder.
func writeInitramfs(path, root string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make the first file system: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := cpio.NewWriter(f)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return w.Dir(name)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return w.Symlink(name, target)
		}
		return w.Copy(name, path)
	})
	if err != nil {
		return fmt.Errorf("make the first file system: %w", err)
	}
	// Without it the kernel gives init no standard output.
	if err := w.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	return w.Close()
}

// AppendInit writes, to path, the base's first file system with the given
// program as init.
func (b Base) AppendInit(path, program string) (err error) {
	if err := copyFile(path, b.Initramfs); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("add init: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := cpio.NewWriter(f)
	if err := w.Copy("init", program); err != nil {
		return err
	}
	return w.Close()
}
