package driver

import (
	"context"

	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// look asks every family what is there now, and tells those whom it concerns.
func (d *Driver) look(ctx context.Context) error {
	err := d.inventory.refresh(ctx)
	d.options.NodeLabels.Found(d.inventory.gpuProducts())
	return err
}

// gpuProducts returns what each of the node's GPUs is called, whoever is given
// them, and whether every family could tell what is there.
func (i *inventory) gpuProducts() (products []string, whole bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	whole = true
	for _, f := range i.found {
		whole = whole && f.err == nil
		for _, d := range f.inventory.Devices {
			if d.Kind == device.KindGPU {
				products = append(products, ptr.Deref(d.Attributes[device.AttributeProductName].StringValue, ""))
			}
		}
	}
	return products, whole
}
