package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/packages"
)

// copyModules copies the kernel modules, unpacked: an emulated machine would
// take seconds to do it at each boot.
func copyModules(ctx context.Context, root string, tree packages.Tree, kernel string) error {
	from, to := filepath.Join(tree.Dir, "usr/lib/modules", kernel), filepath.Join(root, "usr/lib/modules", kernel)
	dependencies, err := os.ReadFile(filepath.Join(from, "modules.dep"))
	if err != nil {
		return fmt.Errorf("read which kernel module needs which: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(from, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("read what is built into the kernel: %w", err)
	}
	names, err := moduleClosure(string(dependencies), string(builtin), modules())
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unpackModule(ctx, filepath.Join(to, strings.TrimSuffix(name, ".xz")), filepath.Join(from, name), tree); err != nil {
			return fmt.Errorf("unpack the kernel module %s: %w", name, err)
		}
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name)); err != nil {
			return err
		}
	}
	if err := tree.Run(ctx, "usr/sbin/depmod", "-b", root, kernel); err != nil {
		return fmt.Errorf("list the guest's kernel modules: %w", err)
	}
	return nil
}

func unpackModule(ctx context.Context, to, from string, tree packages.Tree) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if !strings.HasSuffix(from, ".xz") {
		return copyFile(to, from)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	cmd := tree.Command(ctx, "usr/bin/xz", "--decompress", "--stdout", from)
	cmd.Stdout = f
	return cmd.Run()
}

// moduleClosure returns the files of the wanted modules and of all that they
// need, given the texts of modules.dep and modules.builtin (depmod(8)). What is
// built into the kernel needs no file.
func moduleClosure(dependencies, builtin string, wanted []string) ([]string, error) {
	needs, byName := map[string][]string{}, map[string]string{}
	for line := range strings.Lines(dependencies) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[file], byName[moduleName(file)] = strings.Fields(rest), file
	}
	isBuiltin := map[string]bool{}
	for line := range strings.Lines(builtin) {
		isBuiltin[moduleName(strings.TrimSpace(line))] = true
	}
	var out []string
	seen := map[string]bool{}
	add := func(file string) {
		if !seen[file] {
			seen[file] = true
			out = append(out, file)
		}
	}
	for _, module := range wanted {
		file, ok := byName[moduleName(module)]
		if !ok && !isBuiltin[moduleName(module)] {
			return nil, fmt.Errorf("the kernel has no module %s", module)
		}
		if ok {
			add(file)
		}
		// modules.dep lists all of a module's dependencies, also indirect ones.
		for _, need := range needs[file] {
			add(need)
		}
	}
	return out, nil
}

// moduleName makes one name of a module's spellings and files.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
