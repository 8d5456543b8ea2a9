package deviceplugin

import (
	"cmp"
	"slices"
	"strings"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// fromEdits says what containers need for a device in the words of the device
// plugin API, for runtimes without CDI. Hooks have no place in it: a container
// runtime that knows the vendor, such as NVIDIA's, does their work.
func fromEdits(answer *api.ContainerAllocateResponse, needed device.Edits) {
	for _, edits := range []*cdispec.ContainerEdits{needed.Common, needed.Device} {
		if edits == nil {
			continue
		}
		for _, variable := range edits.Env {
			name, value, _ := strings.Cut(variable, "=")
			answer.Envs[name] = value
		}
		for _, node := range edits.DeviceNodes {
			addNode(answer, node)
		}
		for _, mount := range edits.Mounts {
			addMount(answer, mount)
		}
	}
}

// addNode adds a device node. Several devices may need the same one.
func addNode(answer *api.ContainerAllocateResponse, node *cdispec.DeviceNode) {
	if slices.ContainsFunc(answer.Devices, func(d *api.DeviceSpec) bool { return d.GetContainerPath() == node.Path }) {
		return
	}
	answer.Devices = append(answer.Devices, &api.DeviceSpec{
		ContainerPath: node.Path, HostPath: cmp.Or(node.HostPath, node.Path), Permissions: cmp.Or(node.Permissions, "rw"),
	})
}

func addMount(answer *api.ContainerAllocateResponse, mount *cdispec.Mount) {
	if slices.ContainsFunc(answer.Mounts, func(m *api.Mount) bool { return m.GetContainerPath() == mount.ContainerPath }) {
		return
	}
	answer.Mounts = append(answer.Mounts, &api.Mount{
		ContainerPath: mount.ContainerPath, HostPath: mount.HostPath, ReadOnly: slices.Contains(mount.Options, "ro"),
	})
}
