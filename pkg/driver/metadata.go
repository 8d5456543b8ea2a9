package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// The kubeletplugin helper writes a metadata file for each request of a claim,
// after the claim was prepared, and removes them when kubelet unprepares it.
// It knows nothing of a claim that is released without kubelet, nor of what a
// crash left, so this driver removes them too. The layout is that of
// metadataFilePath in the helper's metadata.go:
// <data folder>/dra-device-metadata/<namespace>_<claim>/<request>/metadata.json.
const metadataFolder = "dra-device-metadata"

// writeMetadata writes a metadata file, or the CDI spec that mounts it, whole
// or not at all. Unlike the helper's own way it does not sync: after a crash
// of the machine kubelet has everything prepared again, and waiting for the
// disk would be the larger part of a preparation. What is there already is left
// alone, so that a repeated preparation needs no room on the disk.
func writeMetadata(path string, data []byte, perm os.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	err := os.WriteFile(temp, data, perm)
	if err == nil {
		err = faultpoint.At(faultpoint.MetadataWritten)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		if removeErr := os.Remove(temp); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// removeAll is [os.RemoveAll], for which a name that no folder can have is one
// that is not there.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, unix.ENAMETOOLONG) {
		return err
	}
	return nil
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

// removeMetadata removes the metadata files of a claim. The folder is named
// after the claim, not its UID, so what a later claim of that name has is left
// alone.
func (d *Driver) removeMetadata(claim device.Claim) error {
	dir := filepath.Join(d.metadataDir(), metadataName(claim))
	owner, err := metadataOwner(dir)
	if err == nil && (owner == "" || owner == claim.UID) {
		err = removeAll(dir)
	}
	if err != nil {
		return fmt.Errorf("remove the metadata files of claim %s: %w: see that %s can be written", claim, err, d.metadataDir())
	}
	return nil
}

// metadataOwner returns the UID of the claim that a folder of metadata files is
// of, or nothing where no file tells.
func metadataOwner(dir string) (types.UID, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "metadata.json"))
	if err != nil {
		return "", err
	}
	for _, path := range files {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		var content struct {
			Metadata struct {
				UID types.UID `json:"uid"`
			} `json:"metadata"`
		}
		// The file is a stream of the same content in several versions.
		err = json.NewDecoder(file).Decode(&content)
		if closeErr := file.Close(); closeErr != nil {
			return "", closeErr
		}
		if err == nil && content.Metadata.UID != "" {
			return content.Metadata.UID, nil
		}
	}
	return "", nil
}

// removeStrayMetadata removes the metadata files of claims that have nothing
// else on this node.
func (d *Driver) removeStrayMetadata(ctx context.Context) error {
	// Listed before the claims: files that are there have a claim by then.
	entries, err := os.ReadDir(d.metadataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list metadata files: %w", err)
	}
	claims, err := d.knownClaims()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, claim := range claims {
		known[metadataName(claim)] = true
	}
	for _, entry := range entries {
		if known[entry.Name()] {
			continue
		}
		path := filepath.Join(d.metadataDir(), entry.Name())
		klog.FromContext(ctx).Info("Removing the metadata files of a claim that is gone", "path", path)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove metadata files: %w", err)
		}
		if err := faultpoint.At(faultpoint.MendMetadata); err != nil {
			return err
		}
	}
	return nil
}
