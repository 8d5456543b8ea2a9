package driver

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func TestProductsOfGPUsAndWhetherTheyAreAll(t *testing.T) {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	gpus := newFakeGPUs("gpu-0", "gpu-1", "gpu-2")
	for i := range gpus.devices {
		gpus.devices[i].Kind = device.KindGPU
		gpus.devices[i].Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			device.AttributeProductName: {StringValue: ptr.To("NVIDIA H200")},
		}
	}
	gpus.devices[2].Kind = device.KindVF
	inv, err := newInventory([]Family{gpus}, metrics)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want []string, wantWhole bool) {
		t.Helper()
		if err := inv.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		products, whole := inv.gpuProducts()
		if diff := cmp.Diff(want, products); diff != "" || whole != wantWhole {
			t.Errorf("whole is %t, want %t; products (-want +got):\n%s", whole, wantWhole, diff)
		}
	}
	check([]string{"NVIDIA H200", "NVIDIA H200"}, true)
	gpus.devices, gpus.err = nil, errors.New("the driver is being replaced")
	check(nil, false)
}
