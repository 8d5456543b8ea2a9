package deviceplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// servedFile is where the kinds are written down that a node serves by its labels.
// What is held does not tell: a device may be on its way to claims.
const servedFile = "device-plugin-kinds.json"

// NoteServed writes down which kinds this node serves, for a start at which nobody can
// tell. It does nothing if that is written already.
func NoteServed(ctx context.Context, dataDir string, kinds []device.Kind) (err error) {
	if kinds == nil {
		kinds = []device.Kind{}
	}
	data, err := json.Marshal(kinds)
	if err != nil {
		return fmt.Errorf("encode which kinds the device plugin serves: %w", err)
	}
	store, err := claimstore.Open(ctx, dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	// Another instance writes the same file.
	unlock, err := store.Lock(ctx, filesLock)
	if err != nil {
		return err
	}
	defer unlock()
	err = wholefile.Update(filepath.Join(dataDir, servedFile), data, wholefile.Options{
		Mode: 0o600, Sync: wholefile.ContentAndName,
		Written: func() error { return faultpoint.At(faultpoint.DevicePluginNoted) },
	})
	if err != nil {
		return fmt.Errorf("write down which kinds the device plugin serves: %w: see that %s can be written and has room", err, dataDir)
	}
	return nil
}

// Served returns what [NoteServed] has written last; nothing if it never has.
func Served(dataDir string) (kinds []device.Kind, err error) {
	path := filepath.Join(dataDir, servedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &kinds)
	}
	if err != nil {
		return nil, fmt.Errorf("find out from %s which kinds the device plugin has served: %w", path, err)
	}
	return kinds, nil
}

// ForgetServed removes what [NoteServed] has written.
func ForgetServed(dataDir string) error {
	if err := wholefile.Remove(filepath.Join(dataDir, servedFile)); err != nil {
		return fmt.Errorf("remove which kinds the device plugin has served: %w", err)
	}
	return nil
}
