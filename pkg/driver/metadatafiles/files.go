package metadatafiles

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
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// The layout is that of metadataFilePath in the helper's metadata.go:
// <data folder>/dra-device-metadata/<namespace>_<claim>/<request>/metadata.json.
const (
	allFolder = "dra-device-metadata"
	fileName  = "metadata.json"
)

// Files are the metadata files of one driver on one node.
type Files struct {
	dir   string
	store *claimstore.Store
}

// New returns the metadata files in a driver's data folder. What the store has
// records or holdings of is still there.
func New(dataDir string, store *claimstore.Store) *Files {
	return &Files{dir: filepath.Join(dataDir, allFolder), store: store}
}

// Operations is how the helper writes and removes its files.
func (f *Files) Operations() kubeletplugin.MetadataFileOperations {
	return kubeletplugin.MetadataFileOperations{
		MkdirAll:  f.makeFolder,
		WriteFile: f.write,
		// The folder is named after the claim, not its UID, so the helper would
		// remove what a later claim of that name has. What it would remove
		// rightly is gone by then: the driver has called Remove.
		RemoveAll: func(string) error { return nil },
	}
}

// Path is where the metadata file of a claim's request is.
func (f *Files) Path(claim device.Claim, request string) string {
	return filepath.Join(f.dir, folderOf(claim), request, fileName)
}

// write writes a metadata file, or the CDI spec that mounts it, whole or not at
// all. Unlike the helper's own way it does not sync: after a crash of the machine
// kubelet has everything prepared again, and waiting for the
// disk would be the larger part of a preparation. What is there already is left
// alone, so that a repeated preparation needs no room on the disk.
func (f *Files) write(path string, data []byte, perm os.FileMode) error {
	name, ok := f.nameIn(path)
	if !ok {
		return update(path, data, perm)
	}
	unlock, err := f.lock(context.Background(), name)
	if err != nil {
		return err
	}
	defer unlock()
	if content, err := decode(bytes.NewReader(data)); err == nil && content.Metadata.Generation > 1 {
		return overwrite(path, data)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the helper makes it
		return err
	}
	return update(path, data, perm)
}

// makeFolder leaves the folders of metadata files to write: without the lock, who
// looks for what is of no claim any more would remove them at once.
func (f *Files) makeFolder(path string, perm os.FileMode) error {
	if _, ok := f.nameIn(path); ok {
		return nil
	}
	return os.MkdirAll(path, perm)
}

func update(path string, data []byte, perm os.FileMode) error {
	return wholefile.Update(path, data, wholefile.Options{
		Mode: perm, Written: func() error { return faultpoint.At(faultpoint.MetadataWritten) },
	})
}

// lock keeps everybody else from the metadata files of the claims of one name.
func (f *Files) lock(ctx context.Context, name string) (unlock func(), err error) {
	return f.store.Lock(ctx, types.UID("metadata "+name))
}

// CheckName refuses a claim for which the helper could write no metadata files:
// it names a folder after the claim, and would only log that it cannot.
func CheckName(claim device.Claim) error {
	if excess := len(folderOf(claim)) - unix.NAME_MAX; excess > 0 {
		return fmt.Errorf("metadata.name is %d characters too long: together with the namespace it may have %d, because a folder on the node is named after the claim", excess, unix.NAME_MAX-len("_"))
	}
	return nil
}

func folderOf(claim device.Claim) string { return claim.Namespace + "_" + claim.Name }

// nameIn returns the name of the folder that a metadata file is in.
func (f *Files) nameIn(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, f.dir+"/")
	name, _, _ := strings.Cut(rest, "/")
	return name, ok
}

// Remove removes the metadata files of a claim, but not what a later claim of its
// name has.
func (f *Files) Remove(ctx context.Context, claim device.Claim) error {
	_, err := f.removeIf(ctx, folderOf(claim), func(owner types.UID) (bool, error) { return owner == claim.UID, nil })
	if err != nil {
		return fmt.Errorf("remove the metadata files of claim %s: %w: see that %s can be written", claim, err, f.dir)
	}
	return nil
}

// removeIf removes the metadata files of the claims of one name, each if that is
// fine for the claim that it is of, or if nothing tells whose it is. It
// tells whether there was anything to remove.
func (f *Files) removeIf(ctx context.Context, name string, fine func(owner types.UID) (bool, error)) (bool, error) {
	dir := filepath.Join(f.dir, name)
	unlock, err := f.lock(ctx, name)
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
		owner, err := owner(path)
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

// owner returns the UID of the claim that the metadata file in a
// request's folder is of, or nothing where no file tells.
func owner(folder string) (_ types.UID, err error) {
	file, err := os.Open(filepath.Join(folder, fileName))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	content, err := decode(file)
	if err != nil {
		return "", nil //nolint:nilerr // nothing tells whose it is
	}
	return content.Metadata.UID, nil
}

// head is what matters here of a metadata file.
type head struct {
	Metadata struct {
		UID        types.UID `json:"uid"`
		Generation int64     `json:"generation"`
	} `json:"metadata"`
}

// decode reads the first object of a metadata file, which is a stream
// of the same content in several versions.
func decode(in io.Reader) (content head, err error) {
	err = json.NewDecoder(in).Decode(&content)
	return content, err
}

// RemoveStray removes the metadata files of claims that have nothing
// else on this node.
func (f *Files) RemoveStray(ctx context.Context) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list metadata files: %w", err)
	}
	for _, entry := range entries {
		removed, err := f.removeIf(ctx, entry.Name(), f.hasNothing)
		if err != nil {
			return fmt.Errorf("remove metadata files: %w", err)
		}
		if !removed {
			continue
		}
		klog.FromContext(ctx).Info("Removed the metadata files of a claim that is gone", "path", filepath.Join(f.dir, entry.Name()))
		if err := faultpoint.At(faultpoint.MendMetadata); err != nil {
			return err
		}
	}
	return nil
}

// hasNothing tells whether a claim has neither a record, readable or not, nor
// anything held.
func (f *Files) hasNothing(uid types.UID) (bool, error) {
	record, err := f.store.Load(uid)
	if err != nil || record != nil {
		return false, nil //nolint:nilerr // whose record cannot be read is not gone
	}
	held, err := f.store.HoldingsOf(uid)
	return len(held) == 0, err
}

// overwrite changes the content of a file that containers have mounted already,
// which would not see another one in its place.
func overwrite(path string, data []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.WriteAt(data, 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(data)))
}
