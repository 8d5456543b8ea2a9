package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Names of the attributes that a VF's metadata file has besides those of the
// ResourceSlice.
const (
	attributeIfName      resourceapi.QualifiedName = "ifName"
	attributeMAC         resourceapi.QualifiedName = "mac"
	attributeRDMADevices resourceapi.QualifiedName = "rdmaDevices"
)

// nodeWait is how long a device node may take to appear after its driver was
// bound.
const nodeWait = 2 * time.Second

// edits returns what a container needs for a VF. All of it is the device's own,
// since VFs of one claim may have different modes; a runtime adds a node that
// two devices have only once. The journal is nil for admin
// access, which gets the device nodes that are there and nothing else.
func (f *Family) edits(ctx context.Context, address topology.Address, config *v1alpha1.VfConfig, j *vfstate.Journal) (device.Edits, error) {
	out := device.Edits{Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}}
	// A CDI device must not be empty, and programs such as DPDK's want the
	// address.
	out.Device = &cdispec.ContainerEdits{Env: []string{
		"VF_" + strings.NewReplacer(":", "_", ".", "_").Replace(address.String()) + "=" + address.String(),
	}}
	if config.Mode == v1alpha1.VfModeVFIO {
		if j == nil {
			return out, nil
		}
		return out, f.addVFIO(ctx, &out, address)
	}
	rdma, err := f.addRDMA(ctx, &out, address, config, j)
	if err != nil {
		return device.Edits{}, err
	}
	if config.Mode == v1alpha1.VfModeRDMA && !rdma.exists() {
		return device.Edits{}, fmt.Errorf("VF %s has no RDMA device, which mode %s needs: load its RDMA driver (such as mlx5_ib) and ib_uverbs on the node, or select VFs with the attribute rdma", address, config.Mode)
	}
	if j == nil {
		return out, nil
	}
	out.Attach = config.Mode == v1alpha1.VfModeNetdevice
	if config.Mode == v1alpha1.VfModeRDMA {
		if out.Attach, err = f.kernel.Host().RDMAExclusive(); err != nil {
			return device.Edits{}, fmt.Errorf("find out whether RDMA devices belong to network namespaces: %w", err)
		}
	}
	f.addAttributes(&out, config, j)
	return out, nil
}

func (f *Family) addAttributes(out *device.Edits, config *v1alpha1.VfConfig, j *vfstate.Journal) {
	if config.IfName != "" {
		out.Attributes[attributeIfName] = resourceapi.DeviceAttribute{StringValue: ptr.To(config.IfName)}
	}
	mac := j.Applied.HardwareAddress
	if mac == "" && j.Former != nil {
		mac = j.Former.HardwareAddress
	}
	if parsed, err := net.ParseMAC(mac); err == nil && len(parsed) == 6 {
		out.Attributes[attributeMAC] = resourceapi.DeviceAttribute{StringValue: ptr.To(mac)}
	}
}

// addVFIO adds the node of the VF's IOMMU group, and the one that every program
// with a group needs.
func (f *Family) addVFIO(ctx context.Context, out *device.Edits, address topology.Address) error {
	group, err := f.drivers.Group(address)
	if err != nil {
		return err
	}
	for _, name := range []string{"vfio/vfio", "vfio/" + group.Name} {
		node, err := f.node(ctx, name, nodeWait)
		if err != nil {
			return err
		}
		out.Device.DeviceNodes = append(out.Device.DeviceNodes, node)
	}
	return nil
}

func (f *Family) addRDMA(ctx context.Context, out *device.Edits, address topology.Address, config *v1alpha1.VfConfig, j *vfstate.Journal) (rdmaDevice, error) {
	link, err := linkOf(f.kernel.Host(), address)
	if err != nil {
		return rdmaDevice{}, err
	}
	if config.Mode == v1alpha1.VfModeNetdevice {
		link = nil
	}
	rdma := f.rdma(address, link)
	if rdma.name == "" && j != nil && j.Place != nil {
		rdma.name = j.Place.RDMA
	}
	if !rdma.exists() {
		return rdma, nil
	}
	for _, name := range rdma.nodes {
		node, err := f.node(ctx, filepath.Join(rdmaFolder, name), 0)
		if err != nil {
			return rdmaDevice{}, fmt.Errorf("RDMA device %s of VF %s: %w", rdma.name, address, err)
		}
		out.Device.DeviceNodes = append(out.Device.DeviceNodes, node)
	}
	// Programs without the connection manager do not need its node.
	if node, err := f.node(ctx, filepath.Join(rdmaFolder, connectionManager), 0); err == nil {
		out.Device.DeviceNodes = append(out.Device.DeviceNodes, node)
	}
	if rdma.name != "" {
		out.Attributes[device.AttributeRDMADevice] = resourceapi.DeviceAttribute{StringValue: &rdma.name}
	}
	if text := strings.Join(rdma.nodes, ","); text != "" && len(text) <= resourceapi.DeviceAttributeMaxValueLength {
		out.Attributes[attributeRDMADevices] = resourceapi.DeviceAttribute{StringValue: &text}
	}
	return rdma, nil
}

// node describes a device node of the host such that a runtime need not look for
// it, waiting a little for one that is just being made.
func (f *Family) node(ctx context.Context, name string, wait time.Duration) (*cdispec.DeviceNode, error) {
	path := filepath.Join(f.opts.DevRoot, name)
	deadline := time.Now().Add(wait)
	for {
		var stat unix.Stat_t
		err := unix.Stat(path, &stat)
		switch {
		case err == nil && stat.Mode&unix.S_IFMT == unix.S_IFCHR:
			found := &cdispec.DeviceNode{
				Path: filepath.Join("/dev", name), Type: "c", Permissions: "rw",
				Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
			}
			if f.opts.HostDevRoot != "" { // for who does look for it
				found.HostPath = filepath.Join(f.opts.HostDevRoot, name)
			}
			return found, nil
		case err == nil:
			return nil, fmt.Errorf("/dev/%s on the host is no character device", name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("look for /dev/%s on the host: %w", name, err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("/dev/%s is not on the host: see that its kernel module is loaded and udev runs", name)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(returnPoll):
		}
	}
}
