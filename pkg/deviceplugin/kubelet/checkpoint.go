package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// replicaMark stands between an ID and the number of a replica where NVIDIA's
	// device plugin gives one GPU to several containers.
	replicaMark = "::"
	// migMark begins IDs of MIG devices of drivers before 470, such as
	// MIG-GPU-<uuid>/<gpu instance>/<compute instance>.
	migMark = "MIG-"
	gpuMark = "GPU-"
)

// deviceID returns the ID of the device that is used under an ID of another device
// plugin. It cannot tell that of a newer MIG device, MIG-<uuid>: the GPU of one is
// in MIG mode, in which none is served whole.
func deviceID(id string) string {
	id, _, _ = strings.Cut(id, replicaMark)
	if gpu, is := strings.CutPrefix(id, migMark); is && strings.HasPrefix(gpu, gpuMark) {
		id, _, _ = strings.Cut(gpu, "/")
	}
	return id
}

// checkpoint is what is read of kubelet's file, see Data in
// pkg/kubelet/cm/devicemanager/checkpoint of Kubernetes 1.37; it has been the
// same since 1.20.
type checkpoint struct {
	Data struct {
		// PodDeviceEntries is null for none, and nil if it is missing.
		PodDeviceEntries json.RawMessage
	}
}

type checkpointEntry struct {
	PodUID    types.UID
	DeviceIDs map[string][]string
}

// uids returns the pods in kubelet's checkpoint by the devices that they have. It
// takes nothing that it does not know for empty.
func (k *Kubelet) uids() (map[string][]types.UID, error) {
	path, err := k.path(k.root, "device-plugins", "kubelet_internal_checkpoint")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path) //nolint:gosec // kubelet's
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: kubelet writes it when a device plugin registers, such as this one for a kind in the configuration's devicePlugin.kinds", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read which pods have which devices: %w", err)
	}
	entries, err := decodeCheckpoint(data)
	if err != nil {
		return nil, fmt.Errorf("read which pods have which devices from %s: %w: kubelet writes it anew when it next gives a device", path, err)
	}
	uids := map[string][]types.UID{}
	for _, entry := range entries {
		for _, ids := range entry.DeviceIDs {
			for _, id := range ids {
				id = deviceID(id)
				if !slices.Contains(uids[id], entry.PodUID) {
					uids[id] = append(uids[id], entry.PodUID)
				}
			}
		}
	}
	return uids, nil
}

func decodeCheckpoint(data []byte) (entries []checkpointEntry, err error) {
	var file checkpoint
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Data.PodDeviceEntries == nil {
		return nil, errors.New("it is of a format that this release does not know, without Data.PodDeviceEntries")
	}
	if err := json.Unmarshal(file.Data.PodDeviceEntries, &entries); err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.PodUID == "" || entry.DeviceIDs == nil {
			return nil, errors.New("it is of a format that this release does not know, with an entry that has no PodUID or DeviceIDs")
		}
	}
	return entries, nil
}
