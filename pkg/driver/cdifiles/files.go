package cdifiles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// tempSuffix ends the name of a file that is being written: a runtime reads
// only .json and .yaml, and two files with the same device are a conflict that
// takes the device away.
const tempSuffix = ".tmp"

// metadataKind stands where a family stands in the names of the specs that the
// kubeletplugin helper writes, see cdiSpecFilePath in its metadata.go.
const metadataKind = "metadata"

// Files are the CDI specs of one driver in one folder.
type Files struct {
	dir    string
	driver string
}

// New returns the CDI specs of driver in dir, the folder that the container
// runtime watches. The folder is made when the first spec is written.
func New(dir, driver string) *Files {
	return &Files{dir: dir, driver: driver}
}

// DeviceID returns the name by which a container runtime is asked for a device
// of a claim. It contains the claim's UID, so that a runtime that caches specs
// never mistakes one claim's device for another's.
func (f *Files) DeviceID(family string, uid types.UID, deviceName string) string {
	return f.kind(family) + "=" + localName(uid, deviceName)
}

// Write replaces the spec of one family's devices in a claim. edits are by
// device name; they must not be empty.
func (f *Files) Write(claim device.Claim, family string, edits map[string]device.Edits) error {
	spec := &cdispec.Spec{Kind: f.kind(family)}
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		e := edits[name]
		if e.Common != nil {
			spec.ContainerEdits = *e.Common
		}
		d := cdispec.Device{Name: localName(claim.UID, name)}
		if e.Device != nil {
			d.ContainerEdits = *e.Device
		}
		spec.Devices = append(spec.Devices, d)
	}
	version, err := cdispec.MinimumRequiredVersion(spec)
	if err != nil {
		return fmt.Errorf("make the CDI spec of claim %s: %w", claim, err)
	}
	spec.Version = version
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the CDI spec of claim %s: %w", claim, err)
	}
	path := f.path(family, claim.UID)
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("create the CDI folder for claim %s: %w: see that %s is a folder that the plugin may write", claim, err, f.dir)
	}
	if err := write(path, data); err != nil {
		return fmt.Errorf("write the CDI spec of claim %s: %w: see that %s can be written and has room", claim, err, f.dir)
	}
	return nil
}

// Exists tells whether the claim has a spec for the family.
func (f *Files) Exists(family string, uid types.UID) bool {
	_, err := os.Stat(f.path(family, uid))
	return err == nil
}

// Remove removes all specs of a claim, also those that the kubeletplugin
// helper wrote for its metadata files. None is fine.
func (f *Files) Remove(uid types.UID) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the CDI specs of claim %s: %w: see that %s is a folder that the plugin may read", uid, err, f.dir)
	}
	for _, entry := range entries {
		if owner, ok := f.owner(entry.Name()); !ok || owner != uid {
			continue
		}
		if err := wholefile.Remove(filepath.Join(f.dir, entry.Name())); err != nil {
			return fmt.Errorf("remove the CDI spec of claim %s: %w: see that %s can be written", uid, err, f.dir)
		}
	}
	return nil
}

// Claims returns the UIDs of the claims that have specs.
func (f *Files) Claims() ([]types.UID, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the CDI specs: %w: see that %s is a folder that the plugin may read", err, f.dir)
	}
	var uids []types.UID
	seen := map[types.UID]bool{}
	for _, entry := range entries {
		uid, ok := f.owner(entry.Name())
		if !ok {
			continue
		}
		if !seen[uid] {
			seen[uid] = true
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// owner returns the UID of the claim that a file belongs to, if the file is one
// of this driver: <driver>_<family>_<uid>.json, or the
// <driver>_metadata_<uid>_<request>.json of the kubeletplugin helper, or what
// an interrupted write left of one. None of the parts has an underscore in it.
func (f *Files) owner(name string) (types.UID, bool) {
	name = strings.TrimSuffix(strings.TrimPrefix(name, "."), tempSuffix)
	rest, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, "_")
	switch {
	case parts[0] != f.driver:
		return "", false
	case len(parts) == 3 && parts[1] != metadataKind, len(parts) == 4 && parts[1] == metadataKind:
		return types.UID(parts[2]), true
	}
	return "", false
}

func (f *Files) kind(family string) string { return f.driver + "/" + family }

func (f *Files) path(family string, uid types.UID) string {
	return filepath.Join(f.dir, f.driver+"_"+family+"_"+string(uid)+".json")
}

func localName(uid types.UID, deviceName string) string {
	return string(uid) + "-" + deviceName
}

// write writes a file that a runtime, which may look at any time, sees whole
// or not at all. Nothing is synced: the folder lives in memory, and after a
// reboot kubelet has the claims prepared again.
func write(path string, data []byte) error {
	return wholefile.Replace(path, data, wholefile.Options{
		Temp:    filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempSuffix),
		Mode:    0o644, // runtimes read CDI specs as any user
		Written: func() error { return faultpoint.At(faultpoint.SpecWritten) },
	})
}
