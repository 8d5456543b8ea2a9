package cdifiles

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

const uid = types.UID("0b7e7f9c-1d5b-4a43-9d36-1c6c4c8c7a10")

func edits(name string) device.Edits {
	return device.Edits{
		Common: &cdispec.ContainerEdits{Mounts: []*cdispec.Mount{{HostPath: "/usr/lib64/libcuda.so.1", ContainerPath: "/usr/lib64/libcuda.so.1"}}},
		Device: &cdispec.ContainerEdits{Env: []string{name + "=1"}},
	}
}

// What all devices share must reach a container once, however many devices of
// the claim it uses.
func TestCommonEditsAreAppliedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cdi") // not there yet
	files := New(dir, "eks-hybrid-dra")
	if err := files.Write(device.Claim{UID: uid}, "gpu", map[string]device.Edits{"gpu-0": edits("A"), "gpu-1": edits("B")}); err != nil {
		t.Fatal(err)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir))
	if err != nil {
		t.Fatal(err)
	}
	container := &ocispec.Spec{}
	if _, err := cache.InjectDevices(container, files.DeviceID("gpu", uid, "gpu-0"), files.DeviceID("gpu", uid, "gpu-1")); err != nil {
		t.Fatal(err)
	}
	if len(container.Mounts) != 1 {
		t.Errorf("mounts: %v", container.Mounts)
	}
	if diff := cmp.Diff([]string{"A=1", "B=1"}, container.Process.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestOnlyOwnFilesAreTouched(t *testing.T) {
	dir := t.TempDir()
	files := New(dir, "eks-hybrid-dra")
	others := []string{
		"eks-hybrid-dra_metadata_another-claim_gpu.json",
		"eks-hybrid-dra2_gpu_" + string(uid) + ".json", // a driver with a similar name
		"eks-hybrid-dra_gpu_another-claim.json",
		"nvidia.yaml",
	}
	own := []string{
		".eks-hybrid-dra_gpu_" + string(uid) + ".json.tmp",     // of an interrupted write
		"eks-hybrid-dra_metadata_" + string(uid) + "_gpu.json", // the kubeletplugin helper's
		".eks-hybrid-dra_metadata_" + string(uid) + "_gpu.json.tmp",
	}
	for _, name := range append(own, others...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Write(device.Claim{UID: uid}, "gpu", map[string]device.Edits{"gpu-0": edits("A")}); err != nil {
		t.Fatal(err)
	}
	if uids, err := files.Claims(); err != nil || len(uids) != 2 {
		t.Errorf("claims %v, %v", uids, err)
	}
	if !files.Exists("gpu", uid) {
		t.Error("the spec is not seen")
	}
	for range 2 {
		if err := files.Remove(uid); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, entry := range entries {
		left[entry.Name()] = true
	}
	want := map[string]bool{}
	for _, name := range others {
		want[name] = true
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("unexpected files (-want +got):\n%s", diff)
	}
}
