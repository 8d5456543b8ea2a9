package fit

import (
	"fmt"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// TestWhatSuitsBest has two machines, a and b. Each case says what is used.
func TestWhatSuitsBest(t *testing.T) {
	everyVF := func(gpu int) (all []string) {
		for vf := range 8 {
			all = append(all, fmt.Sprintf("vf-%d-%d", gpu, vf))
		}
		return all
	}
	for name, tc := range map[string]struct {
		a, b []string
		ask  []resourceapi.DeviceRequest
		want string
	}{
		"equal machines: by name":                       {nil, nil, one(gpus(1)), "a: gpu-0"},
		"a machine in use before a free one":            {nil, []string{"gpu-5"}, one(gpus(1)), "b: gpu-4"},
		"a machine with a VF in use before a free one":  {nil, []string{"vf-3-0"}, one(gpus(8)), "b: gpu-0 gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7"},
		"the NUMA node that is then full":               {[]string{"gpu-0", "gpu-4", "gpu-5"}, nil, one(gpus(2)), "a: gpu-6 gpu-7"},
		"one NUMA node of a free machine before two":    {[]string{"gpu-0", "gpu-4"}, nil, one(gpus(4)), "b: gpu-0 gpu-1 gpu-2 gpu-3"},
		"two NUMA nodes if there is nothing else":       {[]string{"gpu-0", "gpu-4"}, []string{"gpu-0", "gpu-4"}, one(gpus(4)), "a: gpu-1 gpu-2 gpu-3 gpu-5"},
		"GPUs that have lost their VF":                  {[]string{"vf-2-7", "vf-6-7"}, nil, one(gpus(1)), "a: gpu-2"},
		"a VF that is part of no pair":                  {[]string{"gpu-0"}, nil, one(vfs(1)), "a: vf-0-0"},
		"a paired VF whose GPU is gone":                 {slices.Concat([]string{"gpu-4"}, someVFs(0, 8, 7)), slices.Concat([]string{"gpu-0-vf"}, someVFs(1, 8, 7), someVFs(0, 1, 7)), one(vfs(1)), "a: vf-4-7"},
		"VFs of one NIC":                                {nil, nil, one(vfs(3)), "a: vf-0-0 vf-0-1 vf-0-2"},
		"a GPU and a VF side by side":                   {[]string{"gpu-0"}, nil, []resourceapi.DeviceRequest{vfs(1), gpus(1)}, "a: gpu-1 vf-1-0"},
		"GPUs and VFs side by side, one of each NIC":    {nil, nil, []resourceapi.DeviceRequest{gpus(3), vfs(3)}, "a: gpu-0 gpu-1 gpu-2 vf-0-0 vf-1-0 vf-2-0"},
		"a NIC without VFs left is not beside anything": {slices.Concat([]string{"gpu-1"}, everyVF(0), everyVF(2)), []string{"gpu-0"}, []resourceapi.DeviceRequest{gpus(1), vfs(1)}, "a: gpu-3 vf-3-0"},
		"pairs on one NUMA node":                        {[]string{"gpu-0", "vf-1-7"}, nil, one(pairs(2)), "a: gpu-2-vf gpu-3-vf"},
		"pairs and GPUs":                                {[]string{"vf-1-7"}, nil, []resourceapi.DeviceRequest{gpus(1), pairs(2)}, "a: gpu-0-vf gpu-1 gpu-2-vf"},
		"all of a machine":                              {[]string{"gpu-0"}, nil, one(fleettest.All("all", fleettest.ClassGPU)), "b: gpu-0 gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7"},
		"all that match":                                {[]string{"gpu-0"}, nil, one(fleettest.All("all", fleettest.ClassGPU, `device.attributes["eks-hybrid-dra"].index > 5`)), "a: gpu-6 gpu-7"},
		"the better alternative on another node":        {[]string{"gpu-0-vf"}, []string{"gpu-1"}, one(fleettest.FirstOf("r", gpus(8), gpus(1))), "a: gpu-1"},
		"the first alternative":                         {[]string{"gpu-0-vf"}, nil, one(fleettest.FirstOf("r", gpus(8), gpus(1))), "b: gpu-0 gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7"},
		"a certain GPU":                                 {nil, nil, one(fleettest.Request("r", fleettest.ClassGPU, 1, `device.attributes["eks-hybrid-dra"].uuid == "GPU-b-3"`)), "b: gpu-3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fleettest.DGX("b"), fleettest.DGX("a"))
			for node, devices := range map[string][]string{"a": tc.a, "b": tc.b} {
				if len(devices) > 0 {
					w.use(node, devices...)
				}
			}
			for range 2 { // the second time from memory
				if got := w.ask(tc.ask...); got != tc.want {
					t.Errorf("got  %s\nwant %s", got, tc.want)
				}
			}
		})
	}
}

func one(r resourceapi.DeviceRequest) []resourceapi.DeviceRequest {
	return []resourceapi.DeviceRequest{r}
}

// someVFs are the first VFs of each NIC from one to before another.
func someVFs(from, to, each int) (all []string) {
	for gpu := from; gpu < to; gpu++ {
		for vf := range each {
			all = append(all, fmt.Sprintf("vf-%d-%d", gpu, vf))
		}
	}
	return all
}
