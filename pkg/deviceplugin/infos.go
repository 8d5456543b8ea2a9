package deviceplugin

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// infoSuffix ends the names of the files, see GetDPDeviceInfo in the
// network-attachment-definition-client's pkg/utils.
const infoSuffix = "-device.json"

// infos are the files that describe network devices to Multus, by the Device
// Information Specification of the Network Plumbing Working Group. CNI plugins are
// told what is in them.
type infos struct{ dir string }

func newInfos(dir string) *infos { return &infos{dir: dir} }

func (f *infos) path(resource, id string) string {
	return filepath.Join(f.dir, strings.ReplaceAll(resource+"-"+id, "/", "-")+infoSuffix)
}

// write writes the files of the devices that CNI plugins use.
func (f *infos) write(held items) error {
	for _, i := range held {
		if i.resource == nil || !i.resource.Network {
			continue
		}
		address, ok := device.PCIAddress(i.Occupies)
		if !ok {
			continue
		}
		info := netv1.DeviceInfo{
			Type: netv1.DeviceInfoTypePCI, Version: netv1.DeviceInfoVersion,
			Pci: &netv1.PciDevice{PciAddress: address},
		}
		if rdma := i.Attributes[device.AttributeRDMADevice].StringValue; rdma != nil {
			info.Pci.RdmaDevice = *rdma
		}
		if i.Place != nil {
			info.Pci.PfPciAddress = i.Place.Parent
		}
		data, err := json.Marshal(info)
		if err != nil {
			return fmt.Errorf("encode the description of device %q: %w", i.Name, err)
		}
		if err := replace(f.path(i.resource.Name, i.id), data); err != nil {
			return fmt.Errorf("describe device %q to Multus: %w: see that %s can be written and has room", i.Name, err, f.dir)
		}
	}
	return nil
}

// remove removes the file of a device that was served as a resource. None is
// fine.
func (f *infos) remove(resource, id string) error {
	if resource == "" {
		return nil
	}
	if err := wholefile.Remove(f.path(resource, id)); err != nil {
		return fmt.Errorf("remove the description of device %s for Multus: %w", id, err)
	}
	return nil
}
