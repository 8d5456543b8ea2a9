package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/packages"
)

// diskSize is the size that the guest sees; only what is written takes space.
const diskSize = 8 << 30

// EnsureDisk makes a disk with the base's root folder and further programs,
// given as paths here by paths in the guest, unless the cache in dir has it. It
// returns the path of the disk's image, which must not be written to.
func (b Base) EnsureDisk(ctx context.Context, dir string, tree packages.Tree, programs map[string]string) (string, error) {
	key, err := b.diskKey(programs)
	if err != nil {
		return "", err
	}
	path, err := cache.Ensure(dir, "disk-"+key, func(partial string) error {
		root := filepath.Join(partial, "root")
		if err := copyTree(root, b.root); err != nil {
			return fmt.Errorf("copy the guest's root folder: %w", err)
		}
		for to, from := range programs {
			if err := copyFile(filepath.Join(root, to), from); err != nil {
				return err
			}
		}
		image := filepath.Join(partial, "disk.img")
		if err := makeDisk(ctx, image, root, tree); err != nil {
			return err
		}
		if err := os.RemoveAll(root); err != nil {
			return fmt.Errorf("remove the disk's source: %w", err)
		}
		return nil
	})
	return filepath.Join(path, "disk.img"), err
}

// diskKey stands for the content of the disk. A program of the cache of the
// test cluster never changes under its path; its size and time tell about
// others.
func (b Base) diskKey(programs map[string]string) (string, error) {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	sort.Strings(names)
	sum := sha256.New()
	fmt.Fprintln(sum, recipe, b.key, diskSize)
	for _, name := range names {
		info, err := os.Stat(programs[name])
		if err != nil {
			return "", fmt.Errorf("look at a program of the node: %w", err)
		}
		fmt.Fprintln(sum, name, programs[name], info.Size(), info.ModTime().UnixNano())
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// makeDisk makes a file system without mounting it.
func makeDisk(ctx context.Context, image, root string, tree packages.Tree) error {
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	if err := os.Truncate(image, diskSize); err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	cmd := tree.Command(ctx, "usr/sbin/mkfs.ext4", "-q", "-F", "-J", "size=16", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", "-d", root, image)
	cmd.Env = append(cmd.Env, "MKE2FS_CONFIG="+filepath.Join(tree.Dir, "etc/mke2fs.conf"))
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the disk's file system: %w: %s", err, output)
	}
	return nil
}

// copyTree copies folders, files and links.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		return copyFile(target, path)
	})
}
