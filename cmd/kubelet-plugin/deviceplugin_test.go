package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
)

func vfDevice(address, parent, driver string) device.Device {
	return device.Device{
		Name: "vf", Kind: device.KindVF, Place: &device.Place{PCI: address, Parent: parent},
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"driver": {StringValue: ptr.To(driver)}, "pfName": {StringValue: ptr.To("ibp24s0")}, "linkType": {StringValue: ptr.To("infiniband")},
			"vendor": {StringValue: ptr.To("15b3")}, "device": {StringValue: ptr.To("101e")}, "rdma": {BoolValue: ptr.To(true)},
		},
	}
}

func TestResourcesOfTheConfiguration(t *testing.T) {
	config, err := v1alpha1.DecodeNodeConfig([]byte(`
apiVersion: resource.eks-hybrid-dra/v1alpha1
kind: NodeConfig
devicePlugin:
  kinds: [gpu, vf]
  gpuResource: example.com/gpu
  vfResources:
  - {name: nvidia.com/vfio, selectors: [{drivers: [vfio-pci]}]}
  - {name: example.com/ib_vf.1, selectors: [{pfNames: ["ibp24s0#0-3"], linkTypes: [infiniband], rdma: true, vendors: ["15b3"]}]}
  - {name: example.com/any}
`))
	if err != nil {
		t.Fatal(err)
	}
	options := deviceplugin.Options{EnvVar: true}
	if err := defaultOptions().configureResources(&options, config.DevicePlugin); err != nil {
		t.Fatal(err)
	}
	type summary struct{ Name, Variable string }
	var got []summary
	for _, r := range options.Resources {
		got = append(got, summary{r.Name, r.Variable})
	}
	want := []summary{
		{"example.com/gpu", "NVIDIA_VISIBLE_DEVICES"}, {"nvidia.com/vfio", "PCIDEVICE_NVIDIA_COM_VFIO"},
		{"example.com/ib_vf.1", "PCIDEVICE_EXAMPLE_COM_IB_VF_1"}, {"example.com/any", "PCIDEVICE_EXAMPLE_COM_ANY"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	for name, test := range map[string]struct {
		device device.Device
		want   []bool
		change bool
	}{
		"bound to vfio-pci": {vfDevice("0000:18:00.1", "0000:18:00.0", "vfio-pci"), []bool{true, true, true}, true},
		"InfiniBand":        {vfDevice("0000:18:00.1", "0000:18:00.0", "mlx5_core"), []bool{false, true, true}, false},
		"another number": {func() device.Device {
			d := vfDevice("0000:18:00.5", "0000:18:00.0", "mlx5_core")
			d.Place.Index = 4
			return d
		}(), []bool{false, false, true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var chosen []bool
			for _, r := range options.Resources[1:] {
				chosen = append(chosen, r.Selects(test.device))
			}
			if diff := cmp.Diff(test.want, chosen); diff != "" {
				t.Errorf("resources that select it (-want +got):\n%s", diff)
			}
			if config, change := options.Resources[1].Grant(test.device); change != test.change || config == nil {
				t.Errorf("the family may change the device: %v, by %v", change, config)
			}
		})
	}
}

func TestHowResourcesAreServed(t *testing.T) {
	type summary struct {
		EnvVar          bool
		Settle          time.Duration
		Kinds           []device.Kind
		Families, Names []string
		Variable        string
	}
	for name, test := range map[string]struct {
		config string
		kinds  []device.Kind
		want   summary
	}{
		"what is left out": {`{kinds: [gpu]}`, []device.Kind{device.KindGPU}, summary{
			Settle: 30 * time.Second, Kinds: []device.Kind{device.KindGPU}, Families: []string{"gpu", "vf"}, Names: []string{"nvidia.com/gpu"},
		}},
		"what is set": {`{kinds: [gpu, vf], mode: envvar, settle: 2m, gpuResource: example.com/gpu, vfResources: [{name: example.com/vf}]}`, []device.Kind{device.KindGPU, device.KindVF}, summary{
			EnvVar: true, Settle: 2 * time.Minute, Kinds: []device.Kind{device.KindGPU, device.KindVF},
			Families: []string{"gpu", "vf"}, Names: []string{"example.com/gpu", "example.com/vf"}, Variable: "NVIDIA_VISIBLE_DEVICES",
		}},
		"CDI on a node that the selector leaves out": {`{kinds: [gpu], nodeSelector: {pods: classic}, mode: cdi}`, nil, summary{
			Settle: 30 * time.Second, Families: []string{"gpu", "vf"}, Names: []string{"nvidia.com/gpu"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := v1alpha1.DecodeNodeConfig([]byte("apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig\ndevicePlugin: " + test.config))
			if err != nil {
				t.Fatal(err)
			}
			options, err := defaultOptions().resourceOptions(node{bootID: "boot"}, config.DevicePlugin, test.kinds, []driver.Family{named{name: "gpu"}, named{name: "vf"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := summary{EnvVar: options.EnvVar, Settle: options.Settle, Kinds: options.Kinds, Variable: options.Resources[0].Variable}
			for _, f := range options.Families {
				got.Families = append(got.Families, f.Name())
			}
			for _, r := range options.Resources {
				got.Names = append(got.Names, r.Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("served (-want +got):\n%s", diff)
			}
			folders := []string{options.DataDir, options.Dir, options.CDIDir, options.DeviceInfoDir, options.BootID}
			if diff := cmp.Diff([]string{"/var/lib/kubelet/plugins/eks-hybrid-dra", "/var/lib/kubelet/device-plugins", "/var/run/cdi", "/var/run/k8s.cni.cncf.io/devinfo/dp", "boot"}, folders); diff != "" {
				t.Errorf("folders and boot (-want +got):\n%s", diff)
			}
		})
	}
}

// named is a family of which only the name counts.
type named struct {
	driver.Family
	name string
}

func (n named) Name() string { return n.name }

func TestKindsThatAreSwitchedOff(t *testing.T) {
	for name, test := range map[string]struct {
		kinds      []string
		gpu, sriov bool
		families   []driver.Family
		err        string
	}{
		"all are on":                  {[]string{"gpu", "vf"}, true, true, nil, ""},
		"what is off is for nobody":   {[]string{"vf"}, false, true, nil, ""},
		"GPUs are off":                {[]string{"gpu"}, false, true, []driver.Family{named{name: "vf"}}, `--config /config.yaml: devicePlugin.kinds has "gpu", which --enable-gpu=false switches off: set the flag to true, or take the kind out`},
		"VFs are off":                 {[]string{"gpu", "vf"}, true, false, []driver.Family{named{name: "gpu"}}, `devicePlugin.kinds has "vf", which --enable-sriov=false switches off`},
		"pods have some of the VFs":   {[]string{"vf"}, true, false, []driver.Family{named{name: "gpu"}, named{name: "vf"}}, ""},
		"extended resources are none": {nil, true, false, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := &options{config: "/config.yaml", enableGPU: test.gpu, enableSRIOV: test.sriov}
			err := o.checkKinds(t.Context(), test.kinds, test.families)
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
		})
	}
}
