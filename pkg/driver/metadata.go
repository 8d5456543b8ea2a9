package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// The kubeletplugin helper writes a metadata file for each request of a claim,
// after the claim was prepared, and removes them when kubelet unprepares it.
// It knows nothing of a claim that is released without kubelet, nor of what a
// crash left, so this driver removes them too. The layout is that of
// metadataFilePath in the helper's metadata.go:
// <data folder>/dra-device-metadata/<namespace>_<claim>/<request>/metadata.json.
const metadataFolder = "dra-device-metadata"

// metadataFiles is how the helper writes and removes its files.
func (d *Driver) metadataFiles() kubeletplugin.MetadataFileOperations {
	return kubeletplugin.MetadataFileOperations{
		MkdirAll:  d.makeFolder,
		WriteFile: d.writeMetadata,
		// The folder is named after the claim, not its UID, so the helper would
		// remove what a later claim of that name has. What it would remove
		// rightly is gone by then, see unprepareLocked.
		RemoveAll: func(string) error { return nil },
	}
}

// writeMetadata writes a metadata file, or the CDI spec that mounts it, whole
// or not at all. Unlike the helper's own way it does not sync: after a crash
// of the machine kubelet has everything prepared again, and waiting for the
// disk would be the larger part of a preparation. What is there already is left
// alone, so that a repeated preparation needs no room on the disk.
func (d *Driver) writeMetadata(path string, data []byte, perm os.FileMode) error {
	name, ok := d.metadataNameIn(path)
	if !ok {
		return replaceFile(path, data, perm)
	}
	unlock, err := d.lockMetadata(context.Background(), name)
	if err != nil {
		return err
	}
	defer unlock()
	if content, err := decodeMetadata(bytes.NewReader(data)); err == nil && content.Metadata.Generation > 1 {
		return overwrite(path, data)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the helper makes it
		return err
	}
	return replaceFile(path, data, perm)
}

// makeFolder leaves the folders of metadata files to writeMetadata: without the
// lock, who looks for what is of no claim any more would remove them at once.
func (d *Driver) makeFolder(path string, perm os.FileMode) error {
	if _, ok := d.metadataNameIn(path); ok {
		return nil
	}
	return os.MkdirAll(path, perm)
}

func replaceFile(path string, data []byte, perm os.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return wholefile.Replace(path, data, wholefile.Options{
		Mode: perm, Written: func() error { return faultpoint.At(faultpoint.MetadataWritten) },
	})
}

// lockMetadata keeps everybody else from the metadata files of the claims of
// one name.
func (d *Driver) lockMetadata(ctx context.Context, name string) (unlock func(), err error) {
	return d.store.Lock(ctx, types.UID("metadata "+name))
}

// checkName refuses a claim for which the helper could write no metadata files:
// it names a folder after the claim, and would only log that it cannot.
func checkName(claim device.Claim) error {
	if excess := len(metadataName(claim)) - unix.NAME_MAX; excess > 0 {
		return fmt.Errorf("metadata.name is %d characters too long: together with the namespace it may have %d, because a folder on the node is named after the claim", excess, unix.NAME_MAX-len("_"))
	}
	return nil
}

func (d *Driver) metadataDir() string { return filepath.Join(d.options.DataDir, metadataFolder) }

func metadataName(claim device.Claim) string { return claim.Namespace + "_" + claim.Name }

// metadataNameIn returns the name of the folder that a metadata file is in.
func (d *Driver) metadataNameIn(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, d.metadataDir()+"/")
	name, _, _ := strings.Cut(rest, "/")
	return name, ok
}

// removeMetadata removes the metadata files of a claim, but not what a later
// claim of its name has.
func (d *Driver) removeMetadata(ctx context.Context, claim device.Claim) error {
	_, err := d.removeMetadataIf(ctx, metadataName(claim), func(owner types.UID) (bool, error) { return owner == claim.UID, nil })
	if err != nil {
		return fmt.Errorf("remove the metadata files of claim %s: %w: see that %s can be written", claim, err, d.metadataDir())
	}
	return nil
}

// removeMetadataIf removes the metadata files of the claims of one name, each if
// that is fine for the claim that it is of, or if nothing tells whose it is. It
// tells whether there was anything to remove.
func (d *Driver) removeMetadataIf(ctx context.Context, name string, fine func(owner types.UID) (bool, error)) (bool, error) {
	dir := filepath.Join(d.metadataDir(), name)
	unlock, err := d.lockMetadata(ctx, name)
	if err != nil {
		return false, err
	}
	defer unlock()
	requests, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	stays := false
	for _, request := range requests {
		path := filepath.Join(dir, request.Name())
		owner, err := metadataOwner(path)
		if err != nil {
			return false, err
		}
		if owner != "" {
			ok, err := fine(owner)
			if err != nil {
				return false, err
			}
			if !ok {
				stays = true
				continue
			}
		}
		if err := os.RemoveAll(path); err != nil {
			return false, err
		}
	}
	if stays {
		return false, nil
	}
	return true, os.Remove(dir)
}

// metadataOwner returns the UID of the claim that the metadata file in a
// request's folder is of, or nothing where no file tells.
func metadataOwner(folder string) (_ types.UID, err error) {
	file, err := os.Open(filepath.Join(folder, "metadata.json"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err := decodeMetadata(file)
	if err != nil {
		return "", nil //nolint:nilerr // nothing tells whose it is
	}
	return content.Metadata.UID, nil
}

// metadataHead is what matters here of a metadata file.
type metadataHead struct {
	Metadata struct {
		UID        types.UID `json:"uid"`
		Generation int64     `json:"generation"`
	} `json:"metadata"`
}

// decodeMetadata reads the first object of a metadata file, which is a stream
// of the same content in several versions.
func decodeMetadata(in io.Reader) (content metadataHead, err error) {
	err = json.NewDecoder(in).Decode(&content)
	return content, err
}

// removeStrayMetadata removes the metadata files of claims that have nothing
// else on this node.
func (d *Driver) removeStrayMetadata(ctx context.Context) error {
	entries, err := os.ReadDir(d.metadataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list metadata files: %w", err)
	}
	for _, entry := range entries {
		removed, err := d.removeMetadataIf(ctx, entry.Name(), d.hasNothing)
		if err != nil {
			return fmt.Errorf("remove metadata files: %w", err)
		}
		if !removed {
			continue
		}
		klog.FromContext(ctx).Info("Removed the metadata files of a claim that is gone", "path", filepath.Join(d.metadataDir(), entry.Name()))
		if err := faultpoint.At(faultpoint.MendMetadata); err != nil {
			return err
		}
	}
	return nil
}

// hasNothing tells whether a claim has neither a record, readable or not, nor
// anything held.
func (d *Driver) hasNothing(uid types.UID) (bool, error) {
	record, err := d.store.Load(uid)
	if err != nil || record != nil {
		return false, nil //nolint:nilerr // whose record cannot be read is not gone
	}
	held, err := d.store.HoldingsOf(uid)
	return len(held) == 0, err
}
