package driver

import (
	"context"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
)

// Reserve is whoever else gives devices of this node to pods, over the same
// holdings on disk. What it reserves is offered to no claim; claims that were
// allocated it before are still prepared, as far as it is free.
type Reserve interface {
	// Found is told what a family has found, at every look and before anything of
	// it is published.
	Found(ctx context.Context, family string, found device.Inventory, err error)
	// Reserves tells whether claims are not to be offered a device.
	Reserves(d device.Device) bool
	// Watch calls changed whenever Reserves may answer differently, until ctx is
	// done.
	Watch(ctx context.Context, changed func())
}

// noReserve is for where nobody else gives devices.
type noReserve struct{}

func (noReserve) Found(context.Context, string, device.Inventory, error) {}

func (noReserve) Reserves(device.Device) bool { return false }

func (noReserve) Watch(ctx context.Context, _ func()) { <-ctx.Done() }

// offered returns the devices that may be offered to claims. Where a claim still
// has a composite that is reserved, its parts are not offered either: the slices
// no longer tell the scheduler of what the claim takes.
func (d *Driver) offered(devices []owned) []owned {
	absent := map[string]bool{}
	for _, dev := range devices {
		if !d.options.Reserve.Reserves(dev.Device) {
			continue
		}
		absent[dev.Name] = true
		if dev.held {
			for _, part := range dev.parts {
				absent[part.Name] = true
			}
		}
	}
	if len(absent) == 0 {
		return devices
	}
	return slices.DeleteFunc(slices.Clone(devices), func(dev owned) bool { return absent[dev.Name] })
}

// servedFor is how long an answer of the API server to whether it has ResourceSlices
// counts: it is another one only after an update of the cluster.
const servedFor = time.Minute

// slicesServed tells whether the API server has ResourceSlices, as far as it
// answers. Kubernetes before 1.34 has none by default, and needs none where claims
// are offered nothing.
func (d *Driver) slicesServed(ctx context.Context) bool {
	if served, known := d.status.slicesKnown(); known {
		return served
	}
	version := resourceapi.SchemeGroupVersion.String()
	_, err := d.options.KubeClient.Discovery().ServerResourcesForGroupVersion(version)
	if err != nil && !apierrors.IsNotFound(err) {
		return true
	}
	d.status.slicesAnswered(err == nil)
	if err == nil {
		return true
	}
	d.status.tellOnce(ctx, version)
	return false
}

// slicesKnown returns what the API server has answered a moment ago, if it has.
func (s *status) slicesKnown() (served, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served, time.Since(s.servedAsked) < servedFor
}

func (s *status) slicesAnswered(served bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.servedAsked = served, time.Now()
}

// tellOnce logs that nothing is published, and why.
func (s *status) tellOnce(ctx context.Context, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told {
		klog.FromContext(ctx).Info("The API server does not serve this version: claims cannot be used here, and devices are served by the device plugin API alone", "version", version)
	}
	s.told = true
}

// Offered returns the physical things of the devices that the API offers to claims
// now. It is nil where the API server has no ResourceSlices, so that nothing ever was.
func (d *Driver) Offered(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	all, err := d.publishedSlices(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	things := map[string]bool{}
	for _, s := range all {
		for _, dev := range s.Spec.Devices {
			for _, thing := range d.thingsOf(dev) {
				things[thing] = true
			}
		}
	}
	return things, nil
}

// thingsOf returns what a device of a slice takes up: the PCI functions that the
// slice names, which stay the same when devices are numbered anew, or what the
// device of that name takes up here.
func (d *Driver) thingsOf(published resourceapi.Device) (things []string) {
	for _, name := range []resourceapi.QualifiedName{deviceattribute.StandardDeviceAttributePCIBusID, pairs.AttributeVFAddress} {
		if address := published.Attributes[name].StringValue; address != nil {
			things = append(things, device.PCIThing(*address))
		}
	}
	if len(things) > 0 {
		return things
	}
	found, _ := d.inventory.device(published.Name)
	return found.Occupies
}
